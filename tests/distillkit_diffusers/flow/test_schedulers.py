"""Schedulers of every family: a teacher samples as the stock pipeline does with the same one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from tests.distillkit_diffusers.flow.tiny import KINDS, PIXELS, TOKENS, build_pipeline
from tests.distillkit_diffusers.flow.tiny import stock_pipeline as stock
from tests.distillkit_diffusers.sd3 import tiny as sd3
from tests.distillkit_diffusers.tiny import PROMPTS, save

FAMILIES = ["sd3", *KINDS]
EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
# For 16 tokens mu is far below 0.5 by the usual numbers, which begin at 256.
DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each family's tiny pipeline."""
    root = tmp_path_factory.mktemp("models")
    builds = {"sd3": sd3.build_pipeline} | {k: lambda k=k: build_pipeline(k) for k in KINDS}
    return {family: save(build, root / family) for family, build in builds.items()}


def with_scheduler(folder: Path, copy: Path, **fields: Any) -> Path:
    """The pipeline, whose scheduler's config has other fields."""
    shutil.copytree(folder, copy)
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return copy


def config_of(family: str, folder: Path, **fields: Any) -> Any:
    given = {"model": str(folder), "dtype": "float32", "guidance": 0, "max_tokens": TOKENS}
    if family == "sd3":
        return SD3TeacherConfig.model_validate(given | fields)
    return KINDS[family].teacher.model_validate(given | {"resolution": PIXELS} | fields)


@pytest.mark.parametrize("sampling", [{"steps": 3}, {"sigmas": (1.0, 0.6, 0.25)}])
@pytest.mark.parametrize(
    "scheduler",
    [
        {},
        {"use_dynamic_shifting": False, "shift": 5.0},
        DYNAMIC,
        {**DYNAMIC, "time_shift_type": "linear"},
        {"shift_terminal": 0.1},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"stochastic_sampling": True},
    ],
    ids=lambda fields: "-".join(fields) or "own",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_the_stock_pipelines(
    family: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Whatever spacing the scheduler's config asks for, and for the same fresh noise."""
    folder = with_scheduler(folders[family], tmp_path / "model", **scheduler)
    ours = config_of(family, folder, **sampling).build()
    x_T = torch.randn(2, *ours.latent_shape, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    fresh = [torch.randn(x_T.shape[1:], generator=g) for _ in range(2) for g in generators]
    drawn = iter([torch.stack(fresh[:2]), torch.stack(fresh[2:]), x_T])

    def stock_noise(shape: Any, **_: Any) -> torch.Tensor:
        noise = next(drawn)  # FLUX.2's scheduler steps tokens
        return noise if noise.shape == shape else noise.flatten(2).transpose(1, 2)

    monkeypatch.setattr(f"{EULER}.randn_tensor", stock_noise)
    pipe, call = stock(folder), {"num_inference_steps": 3}
    if "sigmas" in sampling:
        call["sigmas"] = list(sampling["sigmas"])
    if family == "sd3":
        call.pop("num_inference_steps") if "sigmas" in call else None
    else:
        call |= {"height": PIXELS, "width": PIXELS}
    call |= {"guidance_scale": 0, "max_sequence_length": TOKENS, "output_type": "pt"}
    expected = pipe(prompt=list(PROMPTS), latents=x_T.clone(), **call).images
    again = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    x_0 = ours.sample(x_T, ours.encode(PROMPTS), again)
    torch.testing.assert_close(ours.decode(x_0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "is FlowMatchHeunDiscreteScheduler"),
        ({"invert_sigmas": True}, "has `invert_sigmas: true`"),
        ({"num_train_timesteps": 500}, "has `num_train_timesteps: 500`"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_other_schedulers_are_refused(
    family: str, folders: dict[str, Path], tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    """By name, before anything is loaded and by `check`."""
    folder = with_scheduler(folders[family], tmp_path / "model", **fields)
    config = config_of(family, folder)
    with pytest.raises(UserError, match=f"^teacher.model: {folder}'s scheduler {said}, and "):
        config.build()
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"prompts: {{type: list, prompts: [a]}}\nteacher: {{type: {family}, model: {folder}}}\n"
        f"student: {{type: {family}}}\nlosses: [{{type: regression}}]\n"
        "optim: {student: {lr: 1.0e-5}}\nrefinement: {type: bottom-up, stages: {1: 2}}\n"
    )
    recipe = load_recipe(file).recipe
    assert any(said in remark.message for remark in recipe.teacher.preflight(recipe))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("family", ["sd3", "z-image"])
def test_a_dynamic_shift_is_that_of_the_pictures_size(
    family: str, folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """16 tokens; mu rises from 0.5 at 4 tokens to 1.15 at 64: 0.63. The shift is exp(mu), or mu."""
    fields = {**DYNAMIC, "time_shift_type": kind, "base_shift": 0.5, "max_shift": 1.15}
    folder = with_scheduler(folders[family], tmp_path / "model", **fields)
    shift = math.exp(0.63) if kind == "exponential" else 0.63
    assert config_of(family, folder).build().shift == pytest.approx(shift)
