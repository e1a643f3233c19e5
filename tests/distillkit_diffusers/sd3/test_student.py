"""The student: what trains, where it starts, and what it publishes, run by stock diffusers."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit.evaluation.sampling import open_model
from distillkit.training.models.student import Student
from distillkit_diffusers.export.exporters import FolderExporter, LoRAExporter, TransformerExporter
from distillkit_diffusers.sd3.configs import SD3StudentConfig, SD3TeacherConfig
from tests.distillkit_diffusers.flow.published.pages import PROMPT, run_page
from tests.distillkit_diffusers.sd3.tiny import T5_TOKENS, noise, stock_pipeline
from tests.distillkit_diffusers.tiny import PROMPTS, perturbed

EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", params=["euler", "renoise"])
def published(
    request: Any, teacher: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Student, Path]:
    """A LoRA student that left the teacher, and its folder."""
    config = SD3StudentConfig(sampler=request.param, train="lora", rank=2)
    network: Any = perturbed(config.build(teacher))
    folder = tmp_path_factory.mktemp("published") / "student"
    network.publish(folder, 1000)
    return Student.of(network, teacher.schedule, config), folder


@pytest.mark.parametrize(
    ("steps", "sigmas"), [(1, [1.0]), (2, [1.0, 0.5]), (4, [1.0, 0.75, 0.5, 0.25])]
)
def test_stock_diffusers_draws_what_the_roll_out_draws(
    published: tuple[Student, Path],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    sigmas: list[float],
) -> None:
    """For the same x_T, and where it adds fresh noise for the same noise."""
    student, folder = published
    assert f"{steps}: {sigmas}" in (folder / "README.md").read_text()
    pipe, x_T = stock_pipeline(folder), noise(2)
    drawn = [noise(2, key) for key in range(1, steps)]
    renoise = torch.stack(drawn) if drawn else x_T[None, :0]
    fresh = iter(drawn)  # and one in the last step, which has no share in its picture
    monkeypatch.setattr(f"{EULER}.randn_tensor", lambda shape, **_: next(fresh, x_T))
    call = {"sigmas": sigmas, "guidance_scale": 0, "max_sequence_length": T5_TOKENS}
    expected = pipe(PROMPTS, latents=x_T.clone(), output_type="latent", **call).images
    with torch.no_grad():
        cond = student.network.teacher.encode(PROMPTS)  # type: ignore[attr-defined]
        x_0 = student.rollout(x_T, cond, steps, renoise)
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t5", [True, False])
def test_pages_and_folders_keep_how_texts_are_read(
    teacher_config: SD3TeacherConfig,
    tiny_sd3: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    t5: bool,
) -> None:
    """12 tokens of T5 where the stock pipeline takes 256, or as many zeros: what a page's own call
    draws is what the roll-out draws, and so is what a published folder is opened for."""
    teacher: Any = teacher_config.model_copy(update={"t5": t5}).build()
    config = SD3StudentConfig(train="lora", rank=2)
    network: Any = perturbed(config.build(teacher))
    student, x_T = Student.of(network, teacher.schedule, config), noise(1)
    names = {"student": "README.md", "lora.safetensors": "lora.md", "whole.safetensors": "whole.md"}
    network.publish(tmp_path / "student", 1000)
    LoRAExporter("fp32", 2, None).export(network, 1000, tmp_path / "lora.safetensors")
    TransformerExporter("fp32").export(network, 1000, tmp_path / "whole.safetensors")

    def drawn(of: Student, by: Any, steps: int) -> torch.Tensor:
        with torch.no_grad():
            x_0 = of.rollout(x_T, by.encode([PROMPT]), steps, x_T.expand(3, *x_T.shape))
            return torch.as_tensor(by.decode(x_0))

    for made, page in names.items():
        folder = tmp_path / made if made == "student" else tmp_path
        monkeypatch.chdir(folder)
        steps, base = (1, None) if made == "student" else (4, tiny_sd3)
        picture = run_page(folder / page, x_T, base)
        torch.testing.assert_close(picture, drawn(student, teacher, steps), rtol=0, atol=1e-4)
    opened, again = open_model(str(tmp_path / "student"), None, None)
    expected = drawn(student, teacher, 2)
    torch.testing.assert_close(drawn(again, opened, 2), expected, rtol=0, atol=1e-5)
    graph = json.loads((tmp_path / "lora.json").read_text())
    assert graph["10"]["class_type"] == ("TripleCLIPLoader" if t5 else "DualCLIPLoader")
    assert ("It loads no T5" in (tmp_path / "lora.md").read_text()) == (not t5)


def test_a_student_without_t5_is_published_without_a_warning(
    teacher_config: SD3TeacherConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = teacher_config.model_copy(update={"t5": False}).build()
    network: Any = SD3StudentConfig().build(teacher)
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    network.publish(tmp_path / "student", 1000)
    assert not caplog.records
    index = json.loads((tmp_path / "student" / "model_index.json").read_text())
    assert index["text_encoder_3"] == [None, None]


def test_the_student_has_left_the_teacher(published: tuple[Student, Path], tiny_sd3: Path) -> None:
    own, theirs = load_file(published[1] / WEIGHTS), load_file(tiny_sd3 / WEIGHTS)
    assert own.keys() == theirs.keys()
    assert max(float((own[n] - theirs[n]).abs().max()) for n in own) > 1e-3


def test_starts_with_published_weights_or_a_lora(teacher: Any, tmp_path: Path) -> None:
    """2 A B on one layer, as a file of diffusers' names; and a whole transformer."""
    weights = teacher.pipe.transformer.state_dict()
    name = "transformer_blocks.1.attn.to_q"
    down, up = torch.ones(1, 16), torch.full((16, 1), 2.0)
    lora = tmp_path / "lora.safetensors"
    keys = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    save_file(keys, lora)
    network: Any = SD3StudentConfig(start=str(lora)).build(teacher)
    found = network.module.state_dict()
    torch.testing.assert_close(found[f"{name}.weight"], weights[f"{name}.weight"] + 2.0)
    same = [n for n in weights if torch.equal(found[n], weights[n])]
    assert len(same) == len(weights) - 1
    file = tmp_path / "turbo.safetensors"
    save_file({n: w + 1 for n, w in weights.items()}, file)
    network = SD3StudentConfig(start=str(file), train="lora", rank=2).build(teacher)
    torch.testing.assert_close(network.transformer(torch.float32).state_dict(), load_file(file))


def test_starts_with_a_runs_snapshot(teacher: Any, tmp_path: Path) -> None:
    """It has what trains alone, so without the table of positions."""
    snapshot = tmp_path / "1-step.safetensors"
    trained = {n: p.detach() + 1 for n, p in teacher.pipe.transformer.named_parameters()}
    save_file(trained, snapshot)
    network: Any = SD3StudentConfig(start=str(snapshot)).build(teacher)
    found = network.module.state_dict()
    table = "pos_embed.pos_embed"
    assert table not in trained
    assert torch.equal(found[table], teacher.pipe.transformer.state_dict()[table])
    assert all(torch.equal(found[n], w) for n, w in trained.items())


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"transformer.blocks.9.lora_A.weight": torch.ones(1, 2)}, "is not a LoRA for this model"),
        ({"decoder.conv.weight": torch.ones(1)}, "it is a VAE, and "),
    ],
)
def test_files_of_other_models_are_refused(
    teacher: Any, tmp_path: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    file = tmp_path / "file.safetensors"
    save_file(tensors, file)
    with pytest.raises(UserError, match=f"^student.start: {file} .*{sentence}"):
        SD3StudentConfig(start=str(file)).build(teacher)


def test_a_student_of_another_size_is_refused(teacher: Any, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file({n: w[:1].clone() for n, w in teacher.pipe.transformer.state_dict().items()}, file)
    with pytest.raises(UserError, match="is a transformer of another size: "):
        SD3StudentConfig(start=str(file)).build(teacher)


def test_a_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1000"):
        SD3StudentConfig(timestep_shift=500)


def test_a_single_file_has_the_authors_names(
    published: tuple[Student, Path], tiny_sd3: Path, tmp_path: Path
) -> None:
    """Stock diffusers reads the student's own tensors from it, and so does a student's start."""
    student, own = published[0], load_file(published[1] / WEIGHTS)
    file = tmp_path / "transformer.safetensors"
    TransformerExporter("fp32").export(student.network, 1000, file)
    assert "joint_blocks.0.x_block.attn.qkv.weight" in load_file(file)
    network = type(student.network.transformer(torch.float32))  # type: ignore[attr-defined]
    read = network.from_single_file(file, config=str(tiny_sd3), subfolder="transformer")
    assert read.state_dict().keys() == own.keys()
    assert all(torch.equal(w, own[name]) for name, w in read.state_dict().items())
    again: Any = SD3StudentConfig(start=str(file)).build(student.network.teacher)  # type: ignore[attr-defined]
    assert all(
        torch.equal(w, own[n]) for n, w in again.transformer(torch.float32).state_dict().items()
    )


def test_exports_load_into_stock_diffusers(
    published: tuple[Student, Path],
    tiny_sd3: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A LoRA of the student's rank gives its weights; a folder in 16 bits has them rounded."""
    student, folder = published
    own, file = load_file(folder / WEIGHTS), tmp_path / "lora.safetensors"
    LoRAExporter("fp32", 2, None).export(student.network, 1000, file)
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)image = ", file.with_suffix(".md").read_text(), re.DOTALL)
    code = re.sub(r'base = "[^"]*"', f"base = {str(tiny_sd3)!r}", code)
    names: dict[str, Any] = {}
    exec(code.replace("bfloat16", "float32"), names)
    pipe = names["pipe"]
    stock = stock_pipeline(folder).scheduler
    pipe.scheduler.set_timesteps(sigmas=names["sigmas"][2])
    stock.set_timesteps(sigmas=[1.0, 0.5])
    assert torch.equal(pipe.scheduler.sigmas, stock.sigmas)
    stochastic = pipe.scheduler.config.stochastic_sampling
    assert stochastic == stock.config.stochastic_sampling
    graph = json.loads(file.with_suffix(".json").read_text())
    assert graph["7"]["inputs"]["sampler_name"] == ("lcm" if stochastic else "euler")
    assert graph["2"]["inputs"]["lora_name"] == file.name
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(pipe.transformer.state_dict(), own, rtol=1e-4, atol=1e-5)
    FolderExporter("fp16").export(student.network, 1000, tmp_path / "half")
    half = load_file(tmp_path / "half" / WEIGHTS)
    assert all(torch.equal(w, own[n].half()) for n, w in half.items())


def test_a_lora_follows_its_network_to_another_device(teacher_config: SD3TeacherConfig) -> None:
    """Buffers too, which are new tensors there: the table of positions is one."""
    teacher: Any = teacher_config.build()
    student = SD3StudentConfig(train="lora", rank=2).build(teacher)
    teacher.pipe.transformer._apply(torch.clone)
    next(teacher.pipe.transformer.buffers()).add_(1)
    x_t, t_B, cond = noise(1), torch.tensor([900]), teacher.encode(PROMPTS[:1])
    with torch.no_grad():
        assert torch.equal(student(x_t, t_B, cond), teacher.denoiser(x_t, t_B, cond))
