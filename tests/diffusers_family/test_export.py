"""A student for other software: each form is read back by that software's own loader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distillkit.atomic import save_tensors
from distillkit.cli import main
from distillkit.errors import UserError
from distillkit.evaluation.sampling import sample
from distillkit.randomness import key_to_seed
from distillkit.randomness import noise as noise_of
from distillkit.runs.folder import RunFolder
from distillkit.training.student import Student
from distillkit_diffusers.configs import UNetStudentConfig
from distillkit_diffusers.exporters import (
    FolderExporter,
    LoRAExporter,
    SingleFileExporter,
    UNetExporter,
)
from distillkit_diffusers.layout import find_unet, unet_names, vae_names, what_is
from distillkit_diffusers.loading import load_teacher
from distillkit_diffusers.lora import extract

from .conftest import SIDE, noise

PROMPTS = ["a red ring", "two blue bars"]
SHIFT = 250


def shaken(student: Any, matrices_only: bool) -> Any:
    """The student with weights a little off the teacher's."""
    drawing = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in student.module.parameters():
            if p.ndim > 1 or not matrices_only:
                p.add_(0.02 * torch.randn(p.shape, generator=drawing))
    return student


@pytest.fixture(scope="module")
def student(teacher: Any) -> Any:
    return shaken(UNetStudentConfig().build(teacher), matrices_only=False)


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
    asked = {"timesteps": [999 * SHIFT // 1000], "guidance_scale": 0, "output_type": "latent"}
    return pipe(PROMPTS, latents=noise(2), **asked).images


def stock(folder: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)


def test_a_single_file_gives_the_same_picture(
    student: Any, tiny_sdxl: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline

    path = tmp_path / "student.safetensors"
    said = SingleFileExporter("fp32").export(student, SHIFT, path)
    pipe = StableDiffusionXLPipeline.from_single_file(
        path, config=str(tiny_sdxl), local_files_only=True, dtype=torch.float32
    )
    torch.testing.assert_close(drawn(pipe), expected(student), rtol=1e-4, atol=1e-5)
    teacher = student.teacher
    for part in ("vae", "text_encoder", "text_encoder_2"):
        ours, theirs = getattr(teacher.pipe, part).state_dict(), getattr(pipe, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert said == ["a checkpoint in SDXL's original layout, fp32, shift 250"]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "timestep_shift": "250"}
        keys = set(file.keys())
    assert "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias" in keys
    assert "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight" in keys
    page = path.with_suffix(".txt").read_text()
    assert "shifted_timestep 250" in page
    assert "timesteps=[249]" in page


def test_names_of_true_sdxl_are_the_published_ones() -> None:
    """Some well-known names of sd_xl_base_1.0.safetensors, and their number: 1680 in its UNet."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from distillkit_diffusers.sdxl_files import SDXL_FILES

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(SDXL_FILES / "unet")
        )
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SDXL_FILES / "vae"))
    names = unet_names(unet.state_dict())
    assert len(set(names.values())) == len(names) == 1680
    for ours, theirs in {
        "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
        "down_blocks.2.resnets.0.conv_shortcut.bias": "input_blocks.7.0.skip_connection.bias",
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.weight": (
            "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight"
        ),
        "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
        "mid_block.resnets.1.time_emb_proj.weight": "middle_block.2.emb_layers.1.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.2.conv.weight",
        "up_blocks.2.resnets.2.norm2.weight": "output_blocks.8.0.out_layers.0.weight",
        "add_embedding.linear_2.bias": "label_emb.0.2.bias",
        "conv_out.weight": "out.2.weight",
    }.items():
        assert names[ours] == theirs
    names = vae_names(vae.state_dict())
    assert len(set(names.values())) == len(names) == 248
    assert (
        names["decoder.up_blocks.0.resnets.2.conv1.weight"] == "decoder.up.3.block.2.conv1.weight"
    )
    assert names["decoder.up_blocks.2.upsamplers.0.conv.bias"] == "decoder.up.1.upsample.conv.bias"
    assert (
        names["encoder.mid_block.attentions.0.to_out.0.weight"]
        == "encoder.mid.attn_1.proj_out.weight"
    )


def test_a_unet_file_has_diffusers_names(student: Any, tiny_sdxl: Path, tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    UNetExporter("fp16").export(student, SHIFT, path)
    weights = load_file(path)
    assert {w.dtype for w in weights.values()} == {torch.float16}
    UNetExporter("fp32").export(student, SHIFT, path)
    pipe = stock(tiny_sdxl)
    pipe.unet.load_state_dict(load_file(path))
    torch.testing.assert_close(drawn(pipe), expected(student), rtol=1e-4, atol=1e-5)
    assert find_unet(weights) == {theirs: ours for ours, theirs in unet_names(weights).items()}


def test_a_folder_in_another_number_format(student: Any, tmp_path: Path) -> None:
    FolderExporter("fp16").export(student, SHIFT, tmp_path / "half")
    weights = load_file(tmp_path / "half/unet/diffusion_pytorch_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float16}
    FolderExporter(None).export(student, SHIFT, tmp_path / "whole")
    torch.testing.assert_close(drawn(stock(tmp_path / "whole")), expected(student))


def test_a_lora_of_full_rank_gives_the_same_picture(
    teacher: Any, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """Full rank, and only matrices moved: the LoRA is the whole difference."""
    student = shaken(UNetStudentConfig().build(teacher), matrices_only=True)
    path = tmp_path / "lora.safetensors"
    said = LoRAExporter("fp32", 10_000, None).export(student, SHIFT, path)
    assert said == [
        "a LoRA of rank 10000, fp32, shift 250",
        "it keeps 100.00% of the difference to its base (squared Frobenius norm)",
    ]
    pipe = stock(tiny_sdxl)
    before = drawn(pipe)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    for name, weight in pipe.unet.state_dict().items():
        torch.testing.assert_close(weight, student.module.state_dict()[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn(pipe), expected(student), rtol=1e-3, atol=1e-3)
    assert (before - expected(student)).abs().max() > 0.05


def test_the_share_is_that_of_the_singular_values() -> None:
    """Singular values 3, 2, 1 and a bias of norm 1: rank 2 keeps (9 + 4) / (9 + 4 + 1 + 1)."""
    spec, _ = torch.linalg.qr(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    change = spec @ torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    base = {"conv_in.weight": torch.ones(4, 3, 1, 1), "conv_in.bias": torch.zeros(4)}
    weights = {
        "conv_in.weight": base["conv_in.weight"] + change[:, :, None, None],
        "conv_in.bias": torch.tensor([0.6, 0.8, 0.0, 0.0]),
    }
    found = extract(weights, base, 2, torch.float32)
    assert found.share == pytest.approx(13 / 15, abs=1e-5)
    assert found.dropped == 1
    down = found.tensors["lora_unet_conv_in.lora_down.weight"]
    up = found.tensors["lora_unet_conv_in.lora_up.weight"]
    assert (down.shape, up.shape) == ((2, 3, 1, 1), (4, 2, 1, 1))
    assert found.tensors["lora_unet_conv_in.alpha"] == 2
    best = spec @ torch.diag(torch.tensor([3.0, 2.0, 0.0]))
    torch.testing.assert_close(up.flatten(1) @ down.flatten(1), best, rtol=1e-4, atol=1e-5)


def test_a_loras_base_is_the_model_before_the_teachers_other_unet(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
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
    with pytest.raises(UserError, match="the student's matrices are its base's"):
        LoRAExporter("fp32", 4, base).export(student, SHIFT, path)


RECIPE = """\
prompts: {{type: list, prompts: [a ring]}}
teacher: {{type: sdxl, model: {model}, dtype: float32}}
student: {{type: unet, timestep_shift: 250}}
losses: [{{type: regression}}]
refinement: {{type: bottom-up, stages: {{1: 2}}}}
optim: {{student: {{lr: 1.0e-4}}}}
"""


@pytest.fixture
def run(student: Any, tiny_sdxl: Path, tmp_path: Path) -> Path:
    """A run whose last snapshot is the student, and whose first is the teacher."""
    folder = RunFolder(tmp_path / "run")
    folder.open_new(RECIPE.format(model=tiny_sdxl), {})
    save_tensors(folder.snapshot("start"), dict(student.teacher.pipe.unet.named_parameters()))
    save_tensors(folder.snapshot("1-step"), dict(student.module.named_parameters()))
    return folder.path


def command(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_the_command_writes_any_snapshot(run: Path, student: Any, capsys: Any) -> None:
    assert command("export", run, "--to", "unet", "--dtype", "fp32") == 0
    written = run / "exports/student-unet.safetensors"
    assert (
        f"{written}\n  the UNet alone, diffusers' names, fp32, shift 250" in capsys.readouterr().out
    )
    assert torch.equal(load_file(written)["conv_in.weight"], student.module.conv_in.weight)
    out = run.parent / "first"
    assert command("export", run, "--to", "diffusers", "--snapshot", "start", "--out", out) == 0
    first = load_file(out / "unet/diffusion_pytorch_model.safetensors")["conv_in.weight"]
    assert torch.equal(first, student.teacher.pipe.unet.conv_in.weight)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "difusers"], "no exporter 'difusers'; did you mean 'diffusers'? installed: "),
        (["--to", "unet", "--rank", "4"], "--rank is not for --to unet"),
        (["--to", "lora", "--rank", "0"], "--rank 0: Input should be greater than or equal to 1"),
        (["--to", "unet", "--dtype", "fp64"], "--dtype fp64: Input should be 'fp16', 'bf16' or"),
        (["--to", "unet", "--out", "a.bin"], "--out a.bin: let the name end in .safetensors"),
        (["--to", "lora", "--base", "/no/such"], "--base: '/no/such' is not on this machine"),
    ],
)
def test_what_can_be_mended_is_a_sentence(
    run: Path, capsys: Any, options: list[str], sentence: str
) -> None:
    assert command("export", run, *options) == 2
    assert sentence in capsys.readouterr().err
    assert not (run / "exports").exists()


def test_a_file_is_told_by_its_names() -> None:
    assert what_is(["encoder.conv_in.weight", "decoder.conv_in.weight"]) == "a VAE"
    assert what_is(["model.diffusion_model.input_blocks.0.0.weight"]).startswith("a UNet without")
    assert what_is(["cond_stage_model.transformer.x"]).startswith(
        "a checkpoint of Stable Diffusion 1"
    )
    assert what_is(["lora_unet_mid.lora_down.weight"]) == "a LoRA"
    assert what_is(["text_model.final_layer_norm.bias"]) == "a text encoder"
    assert what_is(["x"]) == "something else"


STOCK = """
import sys
sys.modules["distillkit"] = sys.modules["distillkit_diffusers"] = None  # not to be imported
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

folder, noise, seed, steps, out = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True)
images = pipe(
    "a red ring",
    latents=load_file(noise)["x_T"],
    num_inference_steps=int(steps),
    guidance_scale=0,
    generator=torch.Generator().manual_seed(int(seed)),
    output_type="pt",
).images
save_file({"images": images.contiguous()}, out, {"scheduler": type(pipe.scheduler).__module__})
"""


@pytest.mark.parametrize("scheduler", ["stock", "shifted"])
def test_a_published_folder_is_sampled_with_the_shift_it_says(
    run: Path, tmp_path: Path, scheduler: str
) -> None:
    """The run's own picture; and, where the scheduler is remote code, diffusers' alone too.

    The noise of every step is drawn from one generator, so its seed is all that diffusers needs.
    """
    folder, steps, seed = tmp_path / "published", 4, 3
    words = ("export", run, "--to", "diffusers", "--dtype", "fp32", "--scheduler", scheduler)
    assert command(*words, "--out", folder) == 0
    expected = sample(str(run), "a red ring", steps, seed)
    found = sample(str(folder), "a red ring", steps, seed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="weights go with timestep shift 250"):
        sample(str(folder), "a red ring", steps, seed, shift=500)
    if scheduler == "stock":
        return
    x_T = noise_of((4, SIDE, SIDE), seed, "x_T", [0])
    save_file({"x_T": x_T}, tmp_path / "x_T.safetensors")
    script, images = tmp_path / "stock.py", tmp_path / "images.safetensors"
    script.write_text(STOCK)
    renoise = str(key_to_seed(seed, "renoise", 0))
    args = [folder, tmp_path / "x_T.safetensors", renoise, str(steps), images]
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, script, *args], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with safe_open(images, "pt") as file:
        assert "timestep_shift_lcm" in file.metadata()["scheduler"]
    torch.testing.assert_close(load_file(images)["images"], expected, rtol=0, atol=1e-4)
