"""A LoRA that trains over the teacher's own tensors; and where students start."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import Notice, UserError
from distillkit.training.models.student import EMA
from distillkit.values import Window
from distillkit_diffusers.configs import UNetEncoderConfig, UNetStudentConfig
from distillkit_diffusers.export.exporters import LoRAExporter, UNetExporter
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit.launch import command
from tests.distillkit_diffusers.tiny import PROMPTS, RECIPE, UNET_FILE, noise


@pytest.fixture
def family(tiny_sdxl: Path) -> Any:
    """A teacher of one's own, whose weights are frozen as a run freezes them."""
    return load_teacher(tiny_sdxl)


def train(student: Any, cond: Any, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(student.module.parameters(), lr=0.5)
    for _ in range(steps):
        student(noise(2), torch.tensor([499, 499]), cond).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_lora_starts_as_the_teacher_and_shares_its_tensors(family: Any) -> None:
    student: Any = UNetStudentConfig(train="lora", rank=4).build(family)
    cond, t_B = family.encode(PROMPTS), torch.tensor([999, 249])
    output = student(noise(2), t_B, cond)
    torch.testing.assert_close(output, family.denoiser(noise(2), t_B, cond))
    own = {p.data_ptr() for p in family.pipe.unet.parameters()}
    used = {n: p for n, p in student.module._twin.named_parameters() if "lora_" not in n}
    assert {p.data_ptr() for p in used.values()} == own
    assert not any(p.requires_grad for p in used.values())
    names = dict(student.module.named_parameters())
    assert all(name.startswith("lora.") and p.dtype == torch.float32 for name, p in names.items())
    assert len(names) == 2 * len(student.module._layers) > 0
    assert EMA(student.module, 0.9).weights.keys() == names.keys()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_moves_the_lora_alone(family: Any, checkpointing: bool) -> None:
    cond, t_B = family.encode(PROMPTS), torch.tensor([999, 249])
    backbone = UNetEncoderConfig().build(family)
    whole = Window(torch.zeros(2), torch.zeros(2), 8, 8, 8, 8)
    before = family.denoiser(noise(2), t_B, cond)
    features = backbone.features(noise(2), t_B, cond, whole)
    state = {n: w.clone() for n, w in family.pipe.unet.state_dict().items()}
    config = UNetStudentConfig(train="lora", rank=4, gradient_checkpointing=checkpointing)
    student: Any = config.build(family)
    start = student(noise(2), t_B, cond).detach()
    train(student, cond)
    assert (student(noise(2), t_B, cond) - start).abs().max() > 1e-4
    assert torch.equal(family.denoiser(noise(2), t_B, cond), before)
    for now, then in zip(backbone.features(noise(2), t_B, cond, whole), features, strict=True):
        assert torch.equal(now, then)
    assert family.pipe.unet.state_dict().keys() == state.keys()
    assert all(torch.equal(w, state[n]) for n, w in family.pipe.unet.state_dict().items())
    assert all(p.grad is None for p in family.pipe.unet.parameters())


def test_checkpointed_gradients_are_the_same(family: Any) -> None:
    cond, t_B = family.encode(PROMPTS), torch.tensor([999, 249])
    grads = []
    for checkpointing in (False, True):
        config = UNetStudentConfig(train="lora", rank=4, gradient_checkpointing=checkpointing)
        student = config.build(family)
        student(noise(2), t_B, cond).square().mean().backward()
        grads.append([p.grad for p in student.module.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again)
    assert any(g.abs().max() > 0 for g in grads[0])


def test_moving_and_number_formats(tiny_sdxl: Path) -> None:
    """Frozen weights in bfloat16, the LoRA in float32; a move of the teacher moves both."""
    half = load_teacher(tiny_sdxl, dtype="bfloat16")
    student: Any = UNetStudentConfig(train="lora", rank=4).build(half)
    half.to("cpu")
    output = student(noise(2), torch.tensor([499, 499]), half.encode(PROMPTS))
    assert output.dtype == torch.float32
    assert student.module._twin.conv_in.weight is half.pipe.unet.conv_in.weight
    assert all(p.dtype == torch.float32 for p in student.module.parameters())


def test_what_leaves_has_the_lora_in_it(family: Any, tmp_path: Path) -> None:
    cond, t_B = family.encode(PROMPTS), torch.tensor([499, 499])
    student: Any = UNetStudentConfig(train="lora", rank=4).build(family)
    train(student, cond)
    expected = student(noise(2), t_B, cond).detach()
    UNetExporter("fp32").export(student, 500, tmp_path / "unet.safetensors")
    other = load_teacher_with(family, tmp_path / "unet.safetensors")
    torch.testing.assert_close(other.denoiser(noise(2), t_B, cond), expected, rtol=1e-4, atol=1e-4)
    notes = LoRAExporter("fp32", 4, None).export(student, 500, tmp_path / "lora.safetensors")
    assert notes[1].startswith("it keeps 100.00%")
    student.publish(tmp_path / "student", 500)
    published = load_file(tmp_path / "student" / UNET_FILE)
    assert published.keys() == family.pipe.unet.state_dict().keys()


def load_teacher_with(family: Any, unet: Path) -> Any:
    import copy

    from distillkit_diffusers.io.weights import replace_weights

    other = copy.deepcopy(family)
    replace_weights(other.pipe.unet, unet, "teacher.unet")
    return other


def test_targets_that_are_not_there(family: Any) -> None:
    with pytest.raises(UserError, match=r"student\.targets: .*no_such_layer"):
        UNetStudentConfig(train="lora", targets=("no_such_layer",)).build(family)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_a_start_from_a_lora(family: Any, tmp_path: Path, how: Any) -> None:
    """W + B A, with one row of ones and twos: every weight is two more."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = family.pipe.unet.get_submodule(name).weight
    path = tmp_path / "start.safetensors"
    key = "lora_unet_" + name.replace(".", "_")
    parts = {
        f"{key}.lora_down.weight": torch.ones(1, weight.shape[1]),
        f"{key}.lora_up.weight": torch.full((weight.shape[0], 1), 2.0),
        f"{key}.alpha": torch.tensor(1.0),
    }
    save_file(parts, path)
    student: Any = UNetStudentConfig(start=str(path), train=how, rank=4).build(family)
    found = student.unet(torch.float32).state_dict()
    torch.testing.assert_close(found[f"{name}.weight"], weight + 2.0)
    assert found.keys() == family.pipe.unet.state_dict().keys()
    assert torch.equal(family.pipe.unet.get_submodule(name).weight, weight)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_a_start_from_the_difference_of_two_unets(
    family: Any, tiny_sdxl: Path, tmp_path: Path, how: Any
) -> None:
    """A turbo less its base, of rank one in one weight, is added to the teacher's own weights."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    base = {n: w + 1 for n, w in load_file(tiny_sdxl / UNET_FILE).items()}
    turbo = {**base, name: base[name] + 2}
    for file, tensors in (("base", base), ("turbo", turbo)):
        save_file(tensors, tmp_path / f"{file}.safetensors", {"timestep_shift": "500"})
    start = f"{tmp_path / 'turbo.safetensors'} - {tmp_path / 'base.safetensors'}"
    fields: dict[str, Any] = {"start": start, "train": how, "rank": 2}
    told = pytest.warns(Notice, match="the LoRA holds 100% of") if how == "lora" else nullcontext()
    with told:
        student: Any = UNetStudentConfig(**fields, timestep_shift=500).build(family)
    found, own = student.unet(torch.float32).state_dict(), family.pipe.unet.state_dict()
    torch.testing.assert_close(found[name], own[name] + 2.0)
    moved = [n for n in own if float((found[n] - own[n]).abs().max()) > 1e-4]
    assert moved == [name]
    with pytest.raises(UserError, match="states timestep shift 500, but the recipe says 250; w"):
        UNetStudentConfig(**fields, timestep_shift=250).build(family)


def test_a_start_with_another_shift_is_refused(
    family: Any, tiny_sdxl: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one_step.safetensors"
    save_file(load_file(tiny_sdxl / UNET_FILE), path, {"timestep_shift": "500"})
    with pytest.raises(UserError, match="states timestep shift 500, but the recipe says 250; w"):
        UNetStudentConfig(start=str(path), timestep_shift=250).build(family)
    UNetStudentConfig(start=str(path), timestep_shift=500).build(family)


def test_a_run_says_how_much_of_a_difference_a_lora_holds(
    tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it is of rank 1, and three quarters lie in a layer that `targets` does not name."""
    named = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    base = load_file(tiny_sdxl / UNET_FILE)
    turbo = {**base, named: base[named] + 1}
    size = base[named].numel()
    turbo["conv_in.weight"] = base["conv_in.weight"].clone()
    turbo["conv_in.weight"].view(-1)[0] += (3 * size) ** 0.5
    for file, tensors in (("base", base), ("turbo", turbo)):
        save_file(tensors, tmp_path / f"{file}.safetensors")
    start = f"{tmp_path / 'turbo.safetensors'} - {tmp_path / 'base.safetensors'}"
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(model=tiny_sdxl))
    words = ["--set", f"student.start={start}", "--set", "student.train=lora"]
    assert command("run", recipe, "--out", tmp_path / "run", *words) == 0
    said = "Note    student.start: the LoRA holds 25% of the difference (of its squared norm): 25%"
    assert said in capsys.readouterr().out
