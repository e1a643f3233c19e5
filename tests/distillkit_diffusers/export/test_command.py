"""`distillkit export`: any snapshot, any exporter's fields, and folders that sample as the run."""

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
from distillkit.cli.export import configure_exporter
from distillkit.errors import UserError
from distillkit.evaluation.sampling import sample
from distillkit.randomness import key_to_seed
from distillkit.randomness import noise as noise_of
from distillkit.runs.folder import RunFolder
from distillkit_diffusers.configs import UNetStudentConfig
from distillkit_diffusers.export.configs import LoRAFileConfig
from tests.distillkit.launch import command
from tests.distillkit_diffusers.tiny import RECIPE, SIDE, UNET_FILE, perturbed


@pytest.fixture(scope="module")
def student(teacher: Any) -> Any:
    return perturbed(UNetStudentConfig().build(teacher))


@pytest.fixture
def run(student: Any, tiny_sdxl: Path, tmp_path: Path) -> Path:
    """A run whose last snapshot is the student, and whose first is the teacher."""
    folder = RunFolder(tmp_path / "run")
    folder.create(RECIPE.format(model=tiny_sdxl), {}, 1)
    save_tensors(folder.snapshot("start"), dict(student.teacher.pipe.unet.named_parameters()))
    save_tensors(folder.snapshot("1-step"), dict(student.module.named_parameters()))
    return folder.path


def test_the_command_writes_any_snapshot(run: Path, student: Any, capsys: Any) -> None:
    assert command("export", run, "--to", "unet", "--set", "dtype=fp32") == 0
    written = run / "exports/student-unet.safetensors"
    assert (
        f"{written}\n  the UNet alone, diffusers' names, fp32, shift 250" in capsys.readouterr().out
    )
    assert torch.equal(load_file(written)["conv_in.weight"], student.module.conv_in.weight)
    out = run.parent / "first"
    assert command("export", run, "--to", "diffusers", "--snapshot", "start", "--out", out) == 0
    first = load_file(out / UNET_FILE)["conv_in.weight"]
    assert torch.equal(first, student.teacher.pipe.unet.conv_in.weight)


def test_a_small_models_single_file_is_drawn_from_beside_its_run(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    """The file has no configs; the run's published folder has them. Elsewhere a sentence says so,
    and what it says works."""
    assert command("export", run, "--to", "single-file", "--set", "dtype=fp32") == 0
    assert command("export", run, "--to", "diffusers", "--out", run / "student") == 0
    file = run / "exports" / "student-single-file.safetensors"
    # Other files give other memory layouts, whose sums may round otherwise.
    ours = sample(run, "a ring", seed=3)
    assert torch.allclose(sample(file, "a ring", seed=3), ours, atol=1e-5)
    moved = file.rename(tmp_path / "elsewhere.safetensors")
    capsys.readouterr()
    assert command("sample", moved, "a ring", "--out", tmp_path / "a.png") == 2
    assert (
        "A model of other sizes is opened as the folder that it was made from, with this file for "
        f"its weights: `distillkit sample FOLDER ... --weights {moved}`"
    ) in capsys.readouterr().err
    drawn = sample(run / "student", "a ring", seed=3, weights=str(moved))
    assert torch.allclose(drawn, ours, atol=1e-5)


def test_a_run_that_lacks_things_is_a_sentence(run: Path, capsys: Any) -> None:
    """Each on top of those before it."""
    harms = [
        (lambda: (run / "snapshots" / "1-step.safetensors").write_bytes(b"x"), "can't be read"),
        (lambda: [f.unlink() for f in (run / "snapshots").iterdir()], "has no weights of the stud"),
        (lambda: (run / "recipe.yaml").write_text("teacher: {type: sdxl}"), "student: missing"),
        (lambda: (run / "recipe.yaml").write_text("{"), "recipe.yaml:1:"),
        (lambda: (run / "recipe.yaml").unlink(), "is not a run folder: it has no recipe.yaml"),
    ]
    for harm, sentence in harms:
        harm()
        assert command("export", run, "--to", "unet") == 2
        assert sentence in capsys.readouterr().err
    assert command("export", run / "gone", "--to", "unet") == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "difusers"], "no exporter 'difusers'; did you mean 'diffusers'? installed: "),
        (
            ["--to", "unet", "--set", "rank=4"],
            "--set rank=4: no field 'rank'; fields of exporter 'unet': dtype",
        ),
        (
            ["--to", "lora", "--set", "rnk=4"],
            "--set rnk=4: no field 'rnk'; did you mean 'rank'? fields of exporter 'lora': dtype, ",
        ),
        (
            ["--to", "lora", "--set", "rank"],
            "--set rank: write --set field=value; fields of exporter 'lora': dtype, rank, base",
        ),
        (
            ["--to", "lora", "--set", "rank=0"],
            "--set rank=0: rank: Input should be greater than or equal to 1; got 0 (Largest rank",
        ),
        (
            ["--to", "unet", "--set", "dtype=fp64"],
            "--set dtype=fp64: dtype: Input should be 'fp16', 'bf16' or 'fp32'; got 'fp64' (Number",
        ),
        (["--to", "unet", "--set", "dtype=[fp16"], "--set dtype=[fp16: not YAML: while parsing"),
        (["--to", "unet", "--out", "a.bin"], "--out a.bin: the file's name must end in .safete"),
        (["--to", "lora", "--set", "base=/no/such"], "  base: '/no/such' is not on this machine"),
    ],
)
def test_what_the_user_can_fix_is_a_sentence(
    run: Path, capsys: Any, options: list[str], sentence: str
) -> None:
    assert command("export", run, *options) == 2
    assert sentence in capsys.readouterr().err
    assert not (run / "exports").exists()


def test_every_wrong_setting_is_reported(run: Path, capsys: Any) -> None:
    assert command("export", run, "--to", "lora", "--set", "rank=0", "--set", "dtpye=fp16") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["--set dtpye=fp16", "--set rank=0"]


def test_settings_are_yaml_and_reach_the_exporter() -> None:
    """`null` is no string; the last of two equal flags is taken, as with recipes."""
    settings = ["rank=8", "rank=0x10", "base=null", "dtype=fp32"]
    made = configure_exporter("lora", settings)
    assert made == LoRAFileConfig(rank=16, base=None, dtype="fp32")


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


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["stock", "shifted"])
def test_a_published_folder_is_sampled_with_the_shift_it_says(
    run: Path, tmp_path: Path, scheduler: str
) -> None:
    """The run's own picture; and, where the scheduler is remote code, diffusers' alone too.

    The noise of every step is drawn from one generator, so its seed is all that diffusers needs.
    """
    folder, steps, seed = tmp_path / "published", 4, 3
    words = ("export", run, "--to", "diffusers", "--set", "dtype=fp32")
    words += ("--set", f"scheduler={scheduler}")
    assert command(*words, "--out", folder) == 0
    expected = sample(run, "a red ring", steps=steps, seed=seed)
    found = sample(folder, "a red ring", steps=steps, seed=seed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="weights go with timestep shift 250"):
        sample(folder, "a red ring", steps=steps, seed=seed, shift=500)
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
