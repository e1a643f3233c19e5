"""A student for other software: each form is read back by that software's own loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit.training.models.student import Student
from distillkit_diffusers.configs import UNetStudentConfig
from distillkit_diffusers.export.exporters import (
    FolderExporter,
    LoRAExporter,
    SingleFileExporter,
    TransformerExporter,
    UNetExporter,
)
from distillkit_diffusers.io.tensor_names import find_unet, unet_names
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit_diffusers.tiny import PROMPTS, UNET_FILE, noise, perturbed, stock_pipeline

SHIFT = 250


@pytest.fixture(scope="module")
def student(teacher: Any) -> Any:
    return perturbed(UNetStudentConfig().build(teacher))


def expected(student: Any) -> torch.Tensor:
    """Our own latents in one step."""
    teacher = student.teacher
    with torch.no_grad():
        ours = Student(student, teacher.schedule, SHIFT)
        return ours.rollout(noise(2), teacher.encode(PROMPTS), 1, torch.empty(0))


def drawn(pipe: Any) -> torch.Tensor:
    """A stock pipeline's latents in one step at the shifted timestep."""
    from diffusers import LCMScheduler

    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    call = {"timesteps": [999 * SHIFT // 1000], "guidance_scale": 0, "output_type": "latent"}
    return pipe(PROMPTS, latents=noise(2), **call).images


def run_page(file: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pipeline that the Python on the file's page makes, of another base and in 32 bits."""
    monkeypatch.chdir(file.parent)
    [code] = re.findall(r"```python\n(.*?)```", file.with_suffix(".md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(re.sub(r'base = "[^"]*"', f"base = {str(base)!r}", code).replace("16)", "32)"), names)
    assert names["image"].size == (32, 32)
    return names["pipe"]


def test_a_single_file_gives_the_same_picture(
    student: Any, tiny_sdxl: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline

    path = tmp_path / "student.safetensors"
    notes = SingleFileExporter("fp32").export(student, SHIFT, path)
    pipe = StableDiffusionXLPipeline.from_single_file(
        path, config=str(tiny_sdxl), local_files_only=True, dtype=torch.float32
    )
    torch.testing.assert_close(drawn(pipe), expected(student), rtol=1e-4, atol=1e-5)
    teacher = student.teacher
    for part in ("vae", "text_encoder", "text_encoder_2"):
        ours, theirs = getattr(teacher.pipe, part).state_dict(), getattr(pipe, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert notes == ["a checkpoint in SDXL's original layout, fp32, shift 250"]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "timestep_shift": "250"}
        keys = set(file.keys())
    assert "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias" in keys
    assert "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight" in keys
    page = path.with_suffix(".md").read_text()
    assert ModelCard(page).data.to_dict()["inference"] == {
        "parameters": {"guidance_scale": 0, "num_inference_steps": 1, "timesteps": [249]}
    }
    assert "shifted_timestep 250" in page
    assert "timesteps=[249]" in page
    # floor(t * 250 / 1000) of 999, 749, 499 and 249.
    assert "| 4 | 999, 749, 499, 249 | 249, 187, 124, 62 |\n" in page
    graph = json.loads(path.with_suffix(".json").read_text())
    assert graph["1"]["inputs"]["ckpt_name"] == "student.safetensors"
    assert graph["3"]["inputs"]["shifted_timestep"] == 250
    assert graph["6"]["inputs"]["height"] == teacher.latent_shape[1] * teacher.pipe.vae_scale_factor


def test_a_unet_file_has_diffusers_names(
    student: Any, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "unet.safetensors"
    UNetExporter("fp16").export(student, SHIFT, path)
    weights = load_file(path)
    assert {w.dtype for w in weights.values()} == {torch.float16}
    UNetExporter("fp32").export(student, SHIFT, path)
    pipe = run_page(path, tiny_sdxl, monkeypatch)
    torch.testing.assert_close(drawn(pipe), expected(student), rtol=1e-4, atol=1e-5)
    assert find_unet(weights) == {theirs: ours for ours, theirs in unet_names(weights).items()}


def test_a_folder_in_another_number_format(student: Any, tmp_path: Path) -> None:
    FolderExporter("fp16").export(student, SHIFT, tmp_path / "half")
    weights = load_file(tmp_path / "half/unet/diffusion_pytorch_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float16}
    FolderExporter(None).export(student, SHIFT, tmp_path / "whole")
    torch.testing.assert_close(drawn(stock_pipeline(tmp_path / "whole")), expected(student))


def test_a_lora_of_full_rank_gives_the_same_picture(
    teacher: Any, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full rank, and only matrices moved: the LoRA is the whole difference."""
    student = perturbed(UNetStudentConfig().build(teacher), matrices_only=True)
    path = tmp_path / "lora.safetensors"
    notes = LoRAExporter("fp32", 10_000, None).export(student, SHIFT, path)
    assert notes == [
        "a LoRA of rank 10000, fp32, shift 250",
        "it keeps 100.00% of the difference to its base (squared Frobenius norm)",
    ]
    before = drawn(stock_pipeline(tiny_sdxl))
    pipe = run_page(path, tiny_sdxl, monkeypatch)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    for name, weight in pipe.unet.state_dict().items():
        torch.testing.assert_close(weight, student.module.state_dict()[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn(pipe), expected(student), rtol=1e-3, atol=1e-3)
    assert (before - expected(student)).abs().max() > 0.05


def test_kohyas_names_are_the_same_lora(teacher: Any, tmp_path: Path) -> None:
    """diffusers' own reader makes the same of both; the names are those of the original blocks,
    by which kohya's tools and ComfyUI find them."""
    from diffusers import StableDiffusionXLPipeline

    student = perturbed(UNetStudentConfig().build(teacher), matrices_only=True)
    notes, read = [], []
    for names in ("diffusers", "kohya"):
        file = tmp_path / f"{names}.safetensors"
        exporter = LoRAExporter("fp32", 2, None, names)  # type: ignore[arg-type]
        notes.append(exporter.export(student, SHIFT, file))
        config = {"unet_config": teacher.pipe.unet.config}
        read.append(StableDiffusionXLPipeline.lora_state_dict(str(file), **config))
    (ours, our_alphas), (kohya, kohya_alphas) = read
    assert ours.keys() == kohya.keys()
    assert all(torch.equal(ours[name], kohya[name]) for name in ours)
    assert our_alphas == kohya_alphas
    keys = {key.partition(".")[0] for key in load_file(file)}
    for key in (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_middle_block_0_in_layers_2",
        "lora_unet_output_blocks_2_2_conv",
        "lora_unet_time_embed_0",
    ):
        assert key in keys
    with safe_open(file, "pt") as opened:
        stated = opened.metadata()
    assert stated["timestep_shift"] == "250"
    assert stated["ss_network_module"] == "networks.lora"
    assert (stated["ss_network_dim"], stated["ss_network_alpha"]) == ("2", "2.0")
    outside = "input_blocks.0.0, time_embed.0, time_embed.2, label_emb.0.0, label_emb.0.2, out.2"
    assert notes[1][:2] == notes[0]
    assert set(notes[1][2].partition("know: ")[2].partition(";")[0].split(", ")) == set(
        outside.split(", ")
    )


def test_a_loras_base_is_the_model_before_the_teachers_other_unet(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_sdxl / UNET_FILE)
    doubled = {n: 2 * w if w.ndim == 2 else w for n, w in weights.items()}
    save_file(doubled, tmp_path / "unet.safetensors")
    student = UNetStudentConfig().build(
        load_teacher(tiny_sdxl, unet=str(tmp_path / "unet.safetensors"))
    )
    path = tmp_path / "lora.safetensors"
    LoRAExporter("fp32", 10_000, None).export(student, SHIFT, path)
    found = load_file(path)
    assert {float(w) for n, w in found.items() if n.endswith(".alpha")} == {32.0}
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    key = "lora_unet_" + name.replace(".", "_")
    change = found[f"{key}.lora_up.weight"] @ found[f"{key}.lora_down.weight"]
    torch.testing.assert_close(change, weights[f"{name}.weight"], rtol=1e-4, atol=1e-5)
    base = str(tmp_path / "unet.safetensors")
    with pytest.raises(UserError, match=r"the student's matrices equal its base's; .*--set base="):
        LoRAExporter("fp32", 4, base).export(student, SHIFT, path)


def test_a_form_for_another_family_is_refused_with_the_remedy(student: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"transformer writes .* UNetStudent: take --to unet"):
        TransformerExporter("bf16").export(student, 1000, tmp_path / "file.safetensors")
    assert not list(tmp_path.iterdir())
