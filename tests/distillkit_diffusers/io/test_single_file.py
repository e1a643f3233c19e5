"""Checkpoints in one file as people share them, and SDXL's configs that ship for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetStudentConfig
from distillkit_diffusers.io.loading import load_unet
from distillkit_diffusers.io.sdxl_files import SDXL_FILES, tokenizers
from distillkit_diffusers.io.single_file import original_tensors
from distillkit_diffusers.io.tensor_names import UNET, unet_names
from distillkit_diffusers.teacher import load_teacher
from distillkit_diffusers.teacher_options import TeacherOptions
from tests.distillkit_diffusers.tiny import noise

PROMPTS = ["a red ring"]


@pytest.fixture(scope="module")
def checkpoint(teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as one file."""
    path = tmp_path_factory.mktemp("single") / "tiny.safetensors"
    pipe = teacher.pipe
    save_file(original_tensors(pipe, pipe.unet, torch.float32), path)
    return path


def test_a_teacher_from_one_file(checkpoint: Path, tiny_sdxl: Path, teacher: Any) -> None:
    config = SDXLTeacherConfig(model=str(checkpoint), config=str(tiny_sdxl), dtype="float32")
    other = config.build()
    x_T = noise(1)
    samples = [
        each.sample(x_T, each.encode(PROMPTS), [torch.Generator()])  # type: ignore[attr-defined]
        for each in (teacher, other)
    ]
    torch.testing.assert_close(samples[1], samples[0], rtol=1e-4, atol=1e-5)


V_SCHEDULE = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("keys", "metadata", "kind", "zero_snr"),
    [
        (("v_pred", "ztsnr"), {}, "v_prediction", True),
        (("v_pred",), {}, "v_prediction", False),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ((), {"modelspec.prediction_type": "sample"}, "sample", False),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ((), {}, "epsilon", False),
    ],
)
def test_a_file_says_what_its_unet_predicts(
    checkpoint: Path,
    tiny_sdxl: Path,
    tmp_path: Path,
    keys: tuple[str, ...],
    metadata: dict[str, str],
    kind: str,
    zero_snr: bool,
) -> None:
    """As ComfyUI and Forge read it. A recipe's `prediction` goes before it; the betas stay."""
    path = tmp_path / "mine.safetensors"
    save_file(load_file(checkpoint) | {key: torch.empty(0) for key in keys}, path, metadata)
    teacher: Any = load_teacher(path, config=str(tiny_sdxl))
    assert teacher.denoiser.prediction == kind
    assert (float(teacher.schedule.alpha_bar_T[-1]) < 1e-6) == zero_snr
    said = TeacherOptions(prediction="epsilon")
    other: Any = load_teacher(path, said, config=str(tiny_sdxl))
    assert other.denoiser.prediction == "epsilon"
    assert torch.equal(other.schedule.alpha_bar_T, teacher.schedule.alpha_bar_T)


def test_a_v_checkpoint_samples_as_the_folder_that_it_was_made_from(
    checkpoint: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    folder, path = tmp_path / "v", tmp_path / "v.safetensors"
    shutil.copytree(tiny_sdxl, folder)
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | V_SCHEDULE))
    save_file(load_file(checkpoint) | {k: torch.empty(0) for k in ("v_pred", "ztsnr")}, path)
    samples = [
        each.sample(noise(1), each.encode(PROMPTS), [torch.Generator()])
        for each in (load_teacher(folder), load_teacher(path, config=str(tiny_sdxl)))
    ]
    torch.testing.assert_close(samples[1], samples[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", [UNET, "diffusion_model.", ""])
def test_a_unet_in_the_original_layout(
    checkpoint: Path, teacher: Any, tmp_path: Path, prefix: str
) -> None:
    """Out of a whole checkpoint, and alone under the prefixes that are met."""
    path = checkpoint
    if prefix != UNET:
        path = tmp_path / "unet.safetensors"
        own = teacher.pipe.unet.state_dict()
        names = unet_names(own)
        save_file({prefix + names[n]: w.contiguous() for n, w in own.items()}, path)
    unet = load_unet(str(path), teacher.pipe.unet, "student.start", torch.float32)
    for name, weight in teacher.pipe.unet.state_dict().items():
        assert torch.equal(unet.state_dict()[name], weight)
    student = UNetStudentConfig(start=str(path)).build(teacher)
    assert torch.equal(student.module.conv_in.weight, teacher.pipe.unet.conv_in.weight)  # type: ignore[operator,union-attr]


def test_sdxls_own_configs_have_its_numbers() -> None:
    """Parameters of the published networks: 2,567,463,684 and so on."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def text(kind: Any, part: str) -> Any:
        return kind(CLIPTextConfig.from_pretrained(SDXL_FILES / part))

    def network(kind: Any, part: str) -> Any:
        return kind.from_config(kind.load_config(SDXL_FILES / part))

    with torch.device("meta"):
        made = {
            2_567_463_684: network(UNet2DConditionModel, "unet"),
            83_653_863: network(AutoencoderKL, "vae"),
            123_060_480: text(CLIPTextModel, "text_encoder"),
            694_659_840: text(CLIPTextModelWithProjection, "text_encoder_2"),
        }
    for count, module in made.items():
        assert sum(p.numel() for p in module.parameters()) == count
    schedule = json.loads((SDXL_FILES / "scheduler/scheduler_config.json").read_text())
    assert (schedule["beta_start"], schedule["beta_end"]) == (0.00085, 0.012)


def test_clips_tokenizer_is_made_of_its_merges() -> None:
    """The published numbers of "a photo of a cat", and both tokenizers' padding."""
    both = tokenizers()
    words = both["tokenizer"]("a photo of a cat").input_ids
    assert words == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(both["tokenizer"]) == 49408
    padded = {
        part: words("A photo of a Cat!", padding="max_length").input_ids
        for part, words in both.items()
    }
    assert padded["tokenizer"][:8] == [49406, 320, 1125, 539, 320, 2368, 256, 49407]
    assert {len(ids) for ids in padded.values()} == {77}
    assert (padded["tokenizer"][-1], padded["tokenizer_2"][-1]) == (49407, 0)


def of_a_vae(folder: Path, checkpoint: Path, to: Path) -> None:
    to.write_bytes((folder / "vae/diffusion_pytorch_model.safetensors").read_bytes())


def of_sd_15(folder: Path, checkpoint: Path, to: Path) -> None:
    old = {"model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.x"}
    save_file({name: torch.zeros(1) for name in old}, to)


def of_a_unet(folder: Path, checkpoint: Path, to: Path) -> None:
    weights = load_file(checkpoint)
    save_file({n: w for n, w in weights.items() if n.startswith(UNET)}, to)


def truncated(folder: Path, checkpoint: Path, to: Path) -> None:
    to.write_bytes(checkpoint.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (of_a_vae, "is a VAE: a whole SDXL checkpoint is needed, and it lacks the UNet"),
        (of_sd_15, "is a checkpoint of Stable Diffusion 1 or 2, not of SDXL: a whole SDXL"),
        (of_a_unet, "is an SDXL-class UNet: .* A UNet alone goes into teacher.unet"),
        (truncated, "teacher.model: .*x.safetensors cannot be read: .* download it again"),
    ],
)
def test_wrong_files_get_a_sentence(
    tiny_sdxl: Path, checkpoint: Path, tmp_path: Path, make: Any, sentence: str
) -> None:
    path = tmp_path / "x.safetensors"
    make(tiny_sdxl, checkpoint, path)
    with pytest.raises(UserError, match=sentence):
        load_teacher(path, config=str(tiny_sdxl))
