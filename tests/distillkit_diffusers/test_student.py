"""The student: a trainable copy; and what it publishes, run by stock diffusers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit.training.models.student import Student
from distillkit_diffusers.configs import UNetStudentConfig
from tests.distillkit_diffusers.tiny import PROMPTS, UNET_FILE, noise, stock_pipeline

SHIFT = 500


@pytest.fixture(scope="module")
def student(teacher: Any) -> Any:
    """A student whose weights have left the teacher's a little."""
    student = UNetStudentConfig().build(teacher)
    with torch.no_grad():
        for p in student.module.parameters():
            p.mul_(1.01)
    return student


@pytest.fixture(scope="module")
def published(student: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "student"
    student.publish(folder, SHIFT)
    return folder


def test_the_student_trains_and_the_teacher_does_not(teacher: Any) -> None:
    student = UNetStudentConfig(gradient_checkpointing=True).build(teacher)
    x_t, t_B, cond = noise(1), torch.tensor([499]), teacher.encode(PROMPTS[:1])
    output = student(x_t, t_B, cond)
    torch.testing.assert_close(output, teacher.denoiser(x_t, t_B, cond))
    output.square().mean().backward()
    assert all(p.dtype == torch.float32 and p.requires_grad for p in student.module.parameters())
    assert student.module.conv_in.weight.grad.abs().max() > 0
    assert student.module.is_gradient_checkpointing
    teachers = teacher.pipe.unet.parameters()
    assert all(not p.requires_grad and p.grad is None for p in teachers)


def test_student_starts_from_a_file_in_float32(
    teacher: Any, tiny_sdxl: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_sdxl / UNET_FILE)
    path = tmp_path / "one_step.safetensors"
    save_file({name: (3 * w).half() for name, w in weights.items()}, path)
    student = UNetStudentConfig(start=str(path)).build(teacher)
    torch.testing.assert_close(
        student.module.conv_in.weight.detach(), (3 * weights["conv_in.weight"]).half().float()
    )
    assert student.module.conv_in.weight.dtype == torch.float32


def test_one_step_with_the_stock_scheduler(
    teacher: Any, student: Any, published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x_T, cond = noise(2), teacher.encode(PROMPTS)
    ours = Student(student, teacher.schedule, SHIFT)
    with torch.no_grad():
        x_0 = ours.rollout(x_T, cond, 1, torch.empty(0))
    pipe = stock_pipeline(published)
    assert type(pipe.scheduler).__name__ == "LCMScheduler"
    assert not caplog.records  # no key that the stock classes do not know
    call = {"timesteps": [499], "guidance_scale": 0, "output_type": "latent"}
    images = pipe(PROMPTS, latents=x_T.clone(), **call).images
    torch.testing.assert_close(images, x_0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_steps_with_the_scheduler_in_the_folder(
    teacher: Any, student: Any, published: Path, steps: int
) -> None:
    from distillkit_diffusers.io.timestep_shift_lcm import TimestepShiftLCMScheduler

    x_T, cond = noise(2), teacher.encode(PROMPTS)
    drawing = torch.Generator().manual_seed(5)
    renoise = [torch.randn(x_T.shape, generator=drawing) for _ in range(steps - 1)]
    ours = Student(student, teacher.schedule, SHIFT)
    with torch.no_grad():
        x_0 = ours.rollout(x_T, cond, steps, torch.stack(renoise) if renoise else torch.empty(0))

    pipe = stock_pipeline(published)
    pipe.scheduler = TimestepShiftLCMScheduler.from_pretrained(
        published, subfolder="scheduler_shift"
    )
    images = pipe(
        PROMPTS,
        latents=x_T.clone(),
        num_inference_steps=steps,
        guidance_scale=0,
        output_type="latent",
        generator=torch.Generator().manual_seed(5),
    ).images
    torch.testing.assert_close(images, x_0, rtol=1e-4, atol=1e-4)


def test_the_page_in_the_folder_runs_as_it_stands(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    page = (published / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
        assert names["image"].size == (32, 32)
    assert names["TimestepShiftLCMScheduler"].__module__ == "timestep_shift_lcm"
    assert names["pipe"].scheduler.timesteps.tolist() == [499, 374, 249, 124]


def test_shift_and_older_keys_are_in_the_folder(published: Path) -> None:
    config = json.loads((published / "scheduler_shift/scheduler_config.json").read_text())
    assert config["shifted_timestep"] == SHIFT
    assert config["original_inference_steps"] == 4
    for part in ("text_encoder", "text_encoder_2"):
        names = load_file(published / part / "model.safetensors")
        assert all(name.startswith(("text_model.", "text_projection")) for name in names)
    assert [p.name for p in published.parent.iterdir()] == ["student"]


def test_no_path_of_this_machine_is_in_the_folder(published: Path) -> None:
    """diffusers writes into each part's config the folder that it was loaded from."""
    texts = [file.read_text() for file in published.rglob("*.json")]
    assert not [text for text in texts if "_name_or_path" in text]
    assert not [text for text in texts if str(Path(__file__).parents[2]) in text]


def test_the_same_words_give_the_same_embeddings(teacher: Any, published: Path) -> None:
    pipe, cond = stock_pipeline(published), teacher.encode(PROMPTS)
    prompt, _, pooled, _ = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    assert torch.equal(prompt, cond.tensors["prompt"])
    assert torch.equal(pooled, cond.tensors["pooled"])


def test_half_precision_folder(teacher: Any, tmp_path: Path) -> None:
    student = UNetStudentConfig(publish_dtype="float16").build(teacher)
    student.publish(tmp_path / "half", 250)
    weights = load_file(tmp_path / f"half/{UNET_FILE}")
    assert {w.dtype for w in weights.values()} == {torch.float16}
    assert "timesteps=[249]" in (tmp_path / "half/README.md").read_text()
    assert student.module.conv_in.weight.dtype == torch.float32


def test_only_a_pipeline_is_replaced(student: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("keep")
    with pytest.raises(UserError, match="has other files than a pipeline's; name another folder"):
        student.publish(folder, SHIFT)
    assert (folder / "letter.txt").read_text() == "keep"
    (folder / "letter.txt").unlink()
    student.publish(folder, SHIFT)
    student.publish(folder, 250)
    config = json.loads((folder / "scheduler_shift/scheduler_config.json").read_text())
    assert config["shifted_timestep"] == 250
