"""`teacher.bits`: each family's frozen network in 8 or 4 bits; what trains on it and leaves it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.recipe.load import load_recipe
from distillkit.training.build import Parts, build_parts
from distillkit.training.callbacks import Stopped
from distillkit_diffusers.common.quantized import QuantizedLinear, plain_copy
from distillkit_diffusers.configs import SDXLTeacherConfig
from distillkit_diffusers.export.exporters import LoRAExporter
from tests.distillkit.launch import command, told
from tests.distillkit.world import StopAfter, assert_same, everything, trainer
from tests.distillkit_diffusers import tiny
from tests.distillkit_diffusers.flow import tiny as flow
from tests.distillkit_diffusers.sd3 import tiny as sd3

RECIPE = """\
prompts: {{type: list, prompts: [a ring, two bars]}}
teacher: {{type: {name}, model: {model}, dtype: float32, steps: 2, guidance: 0, bits: 4{more}}}
student: {{type: {student}, train: lora, rank: 2}}
backbone: {{type: {backbone}}}
pool: {{type: dynamic, levels: [0, 2], width: 16, depth: 1, zero_init: false}}
losses: [{{type: hinge}}]
refinement: {{type: fixed, steps: 1, iterations: 3}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run: {{batch: 2, previews: 1, preview_every: 100, checkpoint_every: 1, threads: 1}}
"""


@dataclass(frozen=True)
class Family:
    """A family's tiny pipeline, and the names of its parts."""

    build: Callable[[], Any]
    network: str
    more: str = ""
    student: str = "unet"
    backbone: str = "unet-encoder"


SIZES = f", resolution: {flow.PIXELS}, max_tokens: {flow.TOKENS}"
FAMILIES = {
    "sdxl": Family(tiny.build_shallow_pipeline, "unet"),
    "sd3": Family(
        sd3.build_pipeline, "transformer", f", max_tokens: {sd3.T5_TOKENS}", "sd3", "dit"
    ),
    **{
        kind: Family(lambda kind=kind: flow.build_pipeline(kind), "transformer", SIZES, kind, "dit")
        for kind in flow.KINDS
    },
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe_of(family, tmp_path_factory.mktemp("bits"))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe_of("sdxl", tmp_path_factory.mktemp("bits"))


def recipe_of(name: str, folder: Path) -> Path:
    """A recipe whose LoRA student and critics share a base of 4 bits; its model is beside it."""
    of = FAMILIES[name]
    model, path = tiny.save(of.build, folder / "model"), folder / "tiny.yaml"
    fields = {"more": of.more, "student": of.student, "backbone": of.backbone}
    path.write_text(RECIPE.format(name=name, model=model, **fields))
    return path


def parts_of(file: Path, *sets: str) -> Parts:
    return build_parts(load_recipe(file, sets).recipe)


def weights_of(pipeline: Path, network: str) -> dict[str, torch.Tensor]:
    """The network's tensors in a pipeline's folder."""
    return load_file(pipeline / network / "diffusion_pytorch_model.safetensors")


def test_a_run_trains_resumes_and_publishes_whole_weights(
    family: str, file: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(file).recipe
    whole = trainer(recipe, tmp_path / "whole")
    before = {n: t.clone() for n, t in whole.state.student.network.module.named_parameters()}
    whole.train()
    moved = dict(whole.state.student.network.module.named_parameters())
    assert any(not torch.equal(before[name], moved[name]) for name in before)

    broken = trainer(recipe, tmp_path / "broken", StopAfter(1, signal.SIGTERM))
    with pytest.raises(Stopped):
        broken.train()
    resumed = trainer(recipe, tmp_path / "broken")
    resumed.train(resume=True)
    assert_same(everything(whole), everything(resumed))

    network: Any = whole.state.student.network
    network.publish(tmp_path / "student", recipe.student.timestep_shift)
    own = weights_of(file.parent / "model", FAMILIES[family].network)
    published = weights_of(tmp_path / "student", FAMILIES[family].network)
    changes = dict(network.module._layers)
    assert published.keys() == own.keys()
    for name, weight in own.items():
        layer = changes.get(name.removesuffix(".weight"))
        expected = weight if layer is None else weight + layer.get_delta_weight("default").detach()
        torch.testing.assert_close(published[name], expected)


def test_teacher_student_and_critics_share_what_is_packed(file: Path) -> None:
    parts = parts_of(file)
    [network] = parts.teacher.denoisers()  # type: ignore[attr-defined]
    packed = {m.weight.data_ptr() for m in network.modules() if isinstance(m, QuantizedLinear)}
    student: Any = parts.network.module
    twin = {m.weight.data_ptr() for m in student._twin.modules() if isinstance(m, QuantizedLinear)}
    critics = {
        m.weight.data_ptr()
        for module in parts.critics[0].backbone.modules()
        for m in module.modules()
        if isinstance(m, QuantizedLinear)
    }
    assert packed
    assert twin == packed
    assert critics
    assert critics <= packed
    assert not any(p.dtype == torch.int8 for p in student.parameters())


@pytest.mark.parametrize(("bits", "most", "pictures"), [(8, 0.02, 0.001), (4, 0.2, 0.01)])
def test_predictions_gradients_and_pictures_are_near_those_of_whole_weights(
    file: Path, bits: int, most: float, pictures: float
) -> None:
    """`most`: a prediction's relative error, by norm; `pictures`: mean difference of values in
    [0, 1]. The gradient is that of the unpacked network, to rounding."""
    teacher: Any = parts_of(file, f"teacher.bits={bits}").teacher
    [network], whole = teacher.denoisers(), teacher.full_precision()
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, *teacher.latent_shape, generator=generator, requires_grad=True)
    cond, t_B = teacher.encode(["a ring", "two bars"]), torch.tensor([900, 300])

    def run(module: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        teacher.denoiser.module = module
        out = teacher.denoiser(x_t, t_B, cond)
        gradient = torch.autograd.grad(out.square().sum(), x_t)[0]
        return out.detach(), gradient, teacher.decode(teacher.sample(x_t.detach(), cond, []))

    (out, grad, drawn), unpacked, exact = run(network), run(plain_copy(network)), run(whole)
    torch.testing.assert_close((out, grad), unpacked[:2], rtol=1e-4, atol=1e-5)
    assert 0 < float((out - exact[0]).norm() / exact[0].norm()) < most
    assert float((grad - exact[1]).norm() / exact[1].norm()) < 2 * most
    assert 0 < float((drawn - exact[2]).abs().mean()) < pictures


def test_a_student_that_trains_whole_starts_at_whole_weights(sdxl: Path, tmp_path: Path) -> None:
    """Those of the file that replaces the model's."""
    custom = {n: 1.5 * w for n, w in weights_of(sdxl.parent / "model", "unet").items()}
    save_file(custom, tmp_path / "custom.safetensors")
    parts = parts_of(sdxl, f"teacher.unet={tmp_path}/custom.safetensors", "student.train=full")
    own = dict(parts.network.module.named_parameters())
    assert own.keys() == custom.keys()
    assert all(torch.equal(own[name], custom[name]) for name in custom)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in own.values())


def test_a_lora_over_weights_of_its_own_has_them_packed_and_leaves_with_whole_ones(
    sdxl: Path, tmp_path: Path
) -> None:
    start = {n: 1.5 * w for n, w in weights_of(sdxl.parent / "model", "unet").items()}
    save_file(start, tmp_path / "start.safetensors")
    student: Any = parts_of(sdxl, f"student.start={tmp_path}/start.safetensors").network
    packed = [m for m in student.module._twin.modules() if isinstance(m, QuantizedLinear)]
    moved: set[int] = set()
    student.module._apply(lambda t: (moved.add(t.data_ptr()), t)[1])
    assert packed
    assert {m.weight.data_ptr() for m in packed} <= moved
    assert all(
        torch.equal(w, start[n]) for n, w in student.unet(torch.float32).state_dict().items()
    )


def test_a_lora_file_holds_what_trained_and_no_rounding(sdxl: Path, tmp_path: Path) -> None:
    student: Any = tiny.perturbed(parts_of(sdxl).network)
    exporter = LoRAExporter("fp32", rank=2, base=None)
    notes = exporter.export(student, 1000, tmp_path / "lora.safetensors")
    assert "it keeps 100.00% of the difference to its base (squared Frobenius norm)" in notes
    layers = [n for n in load_file(tmp_path / "lora.safetensors") if n.endswith(".alpha")]
    assert len(layers) == len(student.module._layers)


def test_what_is_missing_or_cant_train_is_told_before_anything_is_loaded(
    sdxl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = "losses=[{type: hinge}, {type: distribution-matching}]"
    said = told(2, "check", sdxl, "--set", copied, capsys=capsys)
    expected = "a copy of a teacher with `bits` can't train: set a rank, or leave `bits` out"
    assert f"losses.1.rank: {expected}" in " ".join(said.split())
    assert command("check", sdxl) == 0
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    said = told(2, "check", sdxl, capsys=capsys)
    expected = "8 and 4 bits need bitsandbytes: pip install 'distillkit[8bit]'"
    assert f"teacher.bits: {expected}" in " ".join(said.split())


def test_caches_from_before_the_field_stay_good() -> None:
    """They hold the teacher's fields, and are refused where these are others."""
    config = SDXLTeacherConfig()
    assert "bits" not in config.model_dump(mode="json")
    packed = SDXLTeacherConfig(bits=4)
    assert packed.model_dump(mode="json")["bits"] == 4
    assert SDXLTeacherConfig.model_validate(config.model_dump()) == config
