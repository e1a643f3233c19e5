"""Students: what trains, where they start, and what they publish, run by stock diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit.training.models.student import Student
from distillkit_diffusers.export.exporters import FolderExporter, LoRAExporter
from tests.distillkit_diffusers.flow.tiny import PROMPTS, Tiny, draw, stock_pipeline
from tests.distillkit_diffusers.tiny import perturbed

EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
LAYER = {"z-image": "layers.1.attention.to_q", "flux2": "single_transformer_blocks.1.attn.to_out"}
"""A layer of each family that gets a LoRA."""


@pytest.fixture(scope="module", params=["euler", "renoise"])
def published(
    request: Any, tiny: Tiny, teacher: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Student, Path]:
    """A LoRA student that left the teacher, and its folder."""
    config = tiny.student.model_validate({"sampler": request.param, "train": "lora", "rank": 2})
    network: Any = perturbed(config.build(teacher))
    folder = tmp_path_factory.mktemp("published") / "student"
    network.publish(folder, 1000)
    return Student.of(network, teacher.schedule, config), folder


@pytest.mark.parametrize("call", [{"sigmas": [1.0]}, {"num_inference_steps": 4}])
def test_stock_diffusers_draws_what_the_roll_out_draws(
    published: tuple[Student, Path],
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    call: dict[str, Any],
) -> None:
    """For the same x_T and fresh noise; told the README's sigmas, or four steps alone."""
    student, folder = published
    steps = call.get("num_inference_steps", 1)
    assert "4: [1.0, 0.75, 0.5, 0.25]" in (folder / "README.md").read_text()
    assert "height=32, width=32, sigmas=sigmas[1]" in (folder / "README.md").read_text()
    pipe, x_T = stock_pipeline(folder), tiny.noise(2)
    drawn = [tiny.noise(2, key) for key in range(1, steps)]
    renoise = torch.stack(drawn) if drawn else x_T[None, :0]
    fresh = iter(drawn)  # and one in the last step, which has no share in its picture

    def stock_noise(shape: Any, **_: Any) -> torch.Tensor:
        noise = next(fresh, x_T)  # FLUX.2's scheduler steps tokens
        return noise if noise.shape == shape else noise.flatten(2).transpose(1, 2)

    monkeypatch.setattr(f"{EULER}.randn_tensor", stock_noise)
    expected = draw(pipe, x_T, "latent", guidance_scale=0, **call)
    with torch.no_grad():
        cond = student.network.teacher.encode(PROMPTS)  # type: ignore[attr-defined]
        x_0 = student.rollout(x_T, cond, steps, renoise)
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)


def test_the_student_has_left_the_teacher(published: tuple[Student, Path], folder: Path) -> None:
    """By the layers that have a LoRA; the stock pipeline adds no guidance to it."""
    own, theirs = load_file(published[1] / WEIGHTS), load_file(folder / WEIGHTS)
    assert own.keys() == theirs.keys()
    assert max(float((own[n] - theirs[n]).abs().max()) for n in own) > 1e-3
    index = (published[1] / "model_index.json").read_text()
    assert ('"is_distilled": true' in index) == ("Flux2KleinPipeline" in index)


def test_starts_with_published_weights_or_a_lora(
    kind: str, tiny: Tiny, teacher: Any, tmp_path: Path
) -> None:
    """2 A B on one layer, as a file of diffusers' names; and a whole transformer."""
    weights, name = teacher.pipe.transformer.state_dict(), LAYER[kind]
    lora, (rows, columns) = tmp_path / "lora.safetensors", weights[f"{name}.weight"].shape
    down, up = torch.ones(1, columns), torch.full((rows, 1), 2.0)
    keys = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    save_file(keys, lora)
    network: Any = tiny.student.model_validate({"start": str(lora)}).build(teacher)
    found = network.module.state_dict()
    torch.testing.assert_close(found[f"{name}.weight"], weights[f"{name}.weight"] + 2.0)
    same = [n for n in weights if torch.equal(found[n], weights[n])]
    assert len(same) == len(weights) - 1
    file = tmp_path / "turbo.safetensors"
    save_file({n: w + 1 for n, w in weights.items()}, file)
    fields = {"start": str(file), "train": "lora", "rank": 2}
    network = tiny.student.model_validate(fields).build(teacher)
    torch.testing.assert_close(network.transformer(torch.float32).state_dict(), load_file(file))


def test_a_teacher_with_a_lora_is_the_stock_pipelines(
    kind: str, tiny: Tiny, folder: Path, teacher_config: Any, tmp_path: Path
) -> None:
    """Fused at half its strength."""
    name = LAYER[kind]
    weight = load_file(folder / WEIGHTS)[f"{name}.weight"]
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(2, side, generator=generator) for side in reversed(weight.shape))
    keys = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up.T}
    save_file({n: w.contiguous() for n, w in keys.items()}, tmp_path / "lora.safetensors")
    update = {"lora": str(tmp_path / "lora.safetensors"), "lora_strength": 0.5}
    ours = teacher_config.model_copy(update=update).build()
    found = ours.pipe.transformer.state_dict()[f"{name}.weight"]
    torch.testing.assert_close(found, weight + 0.5 * up.T @ down)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"transformer.blocks.9.lora_A.weight": torch.ones(1, 2)}, "is not a LoRA for this model"),
        ({"decoder.conv.weight": torch.ones(1)}, "it is a VAE, and "),
    ],
)
def test_files_of_other_models_are_refused(
    tiny: Tiny, teacher: Any, tmp_path: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    file = tmp_path / "file.safetensors"
    save_file(tensors, file)
    with pytest.raises(UserError, match=f"^student.start: {file} .*{sentence}"):
        tiny.student.model_validate({"start": str(file)}).build(teacher)


def test_exports_load_into_stock_diffusers(
    published: tuple[Student, Path], folder: Path, tmp_path: Path
) -> None:
    """A LoRA of the student's rank gives its weights; a folder in 16 bits has them rounded."""
    student, own = published[0], load_file(published[1] / WEIGHTS)
    file = tmp_path / "lora.safetensors"
    LoRAExporter("fp32", 2, None).export(student.network, 1000, file)
    pipe = stock_pipeline(folder)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(pipe.transformer.state_dict(), own, rtol=1e-4, atol=1e-5)
    FolderExporter("fp16").export(student.network, 1000, tmp_path / "half")
    half = load_file(tmp_path / "half" / WEIGHTS)
    assert all(torch.equal(w, own[n].half()) for n, w in half.items())
