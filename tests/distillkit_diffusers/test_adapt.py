"""Students that were distilled elsewhere: sampled as ours, and transferred to other checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from distillkit import atomic
from distillkit.atomic import save_tensors
from distillkit.errors import UserError
from distillkit.evaluation.grids import to_image
from distillkit.evaluation.sampling import open_model, sample
from distillkit.exchange import shift_of_file
from distillkit.randomness import noise as keyed_noise
from distillkit.runs.folder import RunFolder
from distillkit_diffusers.io.single_file import original_tensors
from distillkit_diffusers.io.tensor_names import UNET, unet_names
from tests.distillkit.launch import command
from tests.distillkit_diffusers.tiny import RECIPE, UNET_FILE

PROMPT = "a red ring"


@pytest.fixture
def nitro(tiny_sdxl: Path, tmp_path: Path) -> Path:
    """A UNet as NitroSD is shared: diffusers' names, and no shift in its metadata."""
    weights = load_file(tiny_sdxl / UNET_FILE)
    drawing = torch.Generator().manual_seed(2)
    path = tmp_path / "nitrosd-vibrant_unet.safetensors"
    save_file(
        {n: w + 0.02 * torch.randn(w.shape, generator=drawing) for n, w in weights.items()}, path
    )
    return path


def published_steps(pipe: Any, shift: int, steps: int, seed: int) -> torch.Tensor:
    """The published scheduler's arithmetic, written out: a shifted LCMScheduler.

    Its grid is LCM's with four original steps; the model is run and its epsilon converted at
    `timesteps * shift // 1000`, and x_0 is noised at the unshifted next timestep.
    """
    from diffusers import LCMScheduler

    grid = LCMScheduler.from_config(pipe.scheduler.config, original_inference_steps=4)
    grid.set_timesteps(steps)
    noise_levels = grid.timesteps.tolist()
    abar = grid.alphas_cumprod
    prompt, _, pooled, _ = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]])}
    shape = (4, 8, 8)
    x = keyed_noise(shape, seed, "x_T", [0])
    drawn = keyed_noise((steps - 1, *shape), seed, "renoise", [0])[0]
    for i, level in enumerate(noise_levels):
        t = level * shift // 1000
        with torch.no_grad():
            eps = pipe.unet(x, t, prompt, added_cond_kwargs=added).sample
        x_0 = (x - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
        if i + 1 == len(noise_levels):
            return (pipe.vae.decode(x_0 / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(
                0, 1
            )
        after = noise_levels[i + 1]
        x = abar[after].sqrt() * x_0 + (1 - abar[after]).sqrt() * drawn[i : i + 1]
    raise AssertionError


@pytest.mark.parametrize(("shift", "steps"), [(250, 1), (500, 1), (250, 4), (500, 2)])
def test_published_files_give_their_own_schedulers_picture(
    tiny_sdxl: Path, nitro: Path, shift: int, steps: int
) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, dtype=torch.float32)
    pipe.unet.load_state_dict(load_file(nitro))
    with torch.no_grad():
        expected = published_steps(pipe, shift, steps, seed=7)
    found = sample(tiny_sdxl, PROMPT, steps=steps, seed=7, weights=str(nitro), shift=shift)
    assert float((found - expected).abs().max()) < 1e-4


def test_a_student_of_ours_through_the_published_arithmetic(
    tiny_sdxl: Path, nitro: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline

    run = RunFolder(tmp_path / "run")
    run.create(RECIPE.format(model=tiny_sdxl), {}, 1)
    save_tensors(run.snapshot("1-step"), load_file(nitro))
    assert command("export", run.path, "--to", "diffusers", "--out", tmp_path / "student") == 0
    pipe = StableDiffusionXLPipeline.from_pretrained(tmp_path / "student", dtype=torch.float32)
    with torch.no_grad():
        expected = published_steps(pipe, 250, 4, seed=7)
    assert float((sample(run.path, PROMPT, steps=4, seed=7) - expected).abs().max()) < 1e-4


def test_the_command_draws_with_published_weights(
    tiny_sdxl: Path, nitro: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ring.png"
    words = ["sample", tiny_sdxl, PROMPT, "--weights", nitro, "--shift", 500, "--out", out]
    assert command(*words, "--seed", 3) == 0
    expected = to_image(sample(tiny_sdxl, PROMPT, seed=3, weights=str(nitro), shift=500)[0])
    with Image.open(out) as image:
        assert image.tobytes() == expected.tobytes()


def test_a_shift_must_be_known_and_right(tiny_sdxl: Path, nitro: Path) -> None:
    with pytest.raises(
        UserError, match=r"the file does not state its timestep shift, .*--shift 1000"
    ):
        open_model(str(tiny_sdxl), str(nitro), None)
    with pytest.raises(UserError, match="--shift 0: 1 to 1000"):
        open_model(str(tiny_sdxl), str(nitro), 0)
    marked = nitro.with_name("marked.safetensors")
    save_file(load_file(nitro), marked, {"timestep_shift": "500"})
    with pytest.raises(UserError, match="weights go with timestep shift 500"):
        open_model(str(tiny_sdxl), str(marked), 250)
    assert open_model(str(tiny_sdxl), str(marked), None)[1].timestep_shift == 500


def test_a_model_has_no_snapshots(tiny_sdxl: Path) -> None:
    with pytest.raises(UserError, match=r"--snapshot 1-step: .*is no run, and has no snapshots"):
        sample(tiny_sdxl, PROMPT, snapshot="1-step", shift=500)


def test_files_of_both_layouts_mix(
    teacher: Any, tiny_sdxl: Path, nitro: Path, tmp_path: Path
) -> None:
    """A diffusers-keyed student, an original UNet as base, a whole checkpoint to put it onto."""
    own = load_file(tiny_sdxl / UNET_FILE)
    names = unet_names(own)
    base, onto, out = (tmp_path / f"{name}.safetensors" for name in ("base", "onto", "out"))
    save_file({names[n]: w for n, w in own.items()}, base)
    whole = original_tensors(teacher.pipe, teacher.pipe.unet, torch.float32)
    custom = {n: 1.5 * w if n.startswith(UNET) else w for n, w in whole.items()}
    save_file(custom, onto)
    torn = out.with_name(f".{out.name}.{atomic._host()}.4194305.part")
    torn.write_bytes(bytes(10))  # of a process that is gone
    words = ["adapt", "--student", nitro, "--base", base, "--onto", onto, "--out", out]
    assert command(*words, "--strength", 0.8, "--shift", 500) == 0
    assert not torn.exists()
    found, student = load_file(out), load_file(nitro)
    assert found.keys() == whole.keys()
    assert shift_of_file(out) == 500
    for name, key in names.items():
        expected = 1.5 * own[name] + 0.8 * (student[name] - own[name])
        torch.testing.assert_close(found[UNET + key], expected)
    rest = [n for n in whole if not n.startswith(UNET)]
    assert all(torch.equal(found[n], whole[n]) for n in rest)


def test_a_sweep_draws_a_row_a_strength(tiny_sdxl: Path, nitro: Path, tmp_path: Path) -> None:
    base, out = tiny_sdxl / UNET_FILE, tmp_path / "new/grid.png"
    words = ["adapt", "--student", nitro, "--base", base, "--onto", base, "--out", out]
    words += ["--shift", 500, "--sweep", "0,1.0"]
    assert command(*words) == 2
    assert command(*words, "--model", tiny_sdxl, "--prompt", PROMPT, "--prompt", "a bar") == 0
    assert [p.name for p in out.parent.iterdir()] == ["grid.png"]
    pictures = [
        sample(tiny_sdxl, PROMPT, weights=str(file), shift=500)[0] for file in (base, nitro)
    ]
    with Image.open(out) as image:
        # Cells are 32 pixels, magnified to 96, with 4 between them, at the right below the heads.
        for row, picture in enumerate(pictures):
            corner = (image.width - 196, image.height - 196 + 100 * row)
            cell = image.crop((*corner, corner[0] + 96, corner[1] + 96)).resize((32, 32), 0)
            assert cell.tobytes() == to_image(picture).tobytes()


def test_a_sweep_needs_the_shift_and_takes_it_from_the_run(
    tiny_sdxl: Path, nitro: Path, tmp_path: Path, capsys: Any
) -> None:
    """Its messages name the user's files and options, and no file or option of its own."""
    base, out = tiny_sdxl / UNET_FILE, tmp_path / "grid.png"
    words = ["adapt", "--base", base, "--onto", base, "--out", out, "--sweep", "1"]
    words += ["--prompt", PROMPT, "--model"]
    assert command(*words, tiny_sdxl, "--student", nitro) == 2
    err = capsys.readouterr().err
    said = f"--student {nitro}: neither the file nor a folder around it states its timestep shift"
    assert err.startswith(said)
    assert "or --shift 1000 for none" in err
    run = RunFolder(tmp_path / "run")
    run.create(RECIPE.format(model=tiny_sdxl), {})
    save_tensors(run.snapshot("1-step"), load_file(nitro))
    assert command("export", run.path, "--to", "diffusers", "--out", run.student) == 0
    published = run.student / UNET_FILE
    assert command(*words, tiny_sdxl, "--student", published) == 0
    assert out.is_file()
    assert command(*words, tmp_path / "gone", "--student", published) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"--model {tmp_path / 'gone'}, with the weights of --onto for its own, ")
    assert "distillkit-sweep" not in err
    assert [path.name for path in tmp_path.glob("distillkit-sweep*")] == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "x.png"], "--out x.png: name a file that ends in .safetensors"),
        (
            ["--out", "x.png", "--sweep", "a,b", "--prompt", "p", "--model", "m"],
            "--sweep a,b: numb",
        ),
    ],
)
def test_what_the_user_can_fix_is_a_sentence(
    nitro: Path, capsys: Any, options: list[str], sentence: str
) -> None:
    words = ["adapt", "--student", nitro, "--base", nitro, "--onto", nitro]
    assert command(*words, *options) == 2
    assert sentence in capsys.readouterr().err
    assert command(*words, "--out", nitro) == 2
    assert "it is one of the files that are read" in capsys.readouterr().err
