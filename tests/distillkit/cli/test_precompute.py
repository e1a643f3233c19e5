"""`distillkit precompute` through the command, on the shapes teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
from typer.testing import CliRunner

from distillkit import atomic
from distillkit.cli import build
from distillkit.errors import UserError
from tests.distillkit.launch import told


def flags(folder: Path) -> list[str]:
    short = {
        "prompts.count": 16,
        "samples.count": 6,
        "samples.batch": 4,
        "samples.cache": folder,
        "metrics.num_images": 4,
        "teacher.steps": 2,
        "run.threads": 1,
    }
    return [word for key, value in short.items() for word in ("--set", f"{key}={value}")]


def test_it_fills_what_training_and_evaluation_read_and_then_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    command = ["precompute", "recipes/nitro_shapes.yaml", *flags(tmp_path)]
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 0, done.output
    for words in ("training's samples", "evaluation's samples", "reference's samples", "GB in"):
        assert words in done.output
    shards = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert len(shards) == 4  # two of training's six samples, one of each set of four
    torn = tmp_path / f".samples-00000008.safetensors.{atomic._host()}.4194305.part"
    torn.write_bytes(bytes(3_000_000))  # of a process that is gone
    again = CliRunner().invoke(build(), command)
    assert again.exit_code == 0, again.output
    assert "Removed 3.0 MB of unfinished files" in again.output
    assert not torn.exists()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")} == shards


def test_it_fills_the_cache_of_real_pictures(tmp_path: Path) -> None:
    """Beside no cache of the teacher's samples: 16 pictures in shards of 8."""
    sets = {"samples.cache": "null", "samples.real_cache": tmp_path, "samples.batch": 8}
    words = flags(tmp_path) + [w for k, v in sets.items() for w in ("--set", f"{k}={v}")]
    words = ["precompute", "recipes/nitro_shapes_real.yaml", *words]
    done = CliRunner().invoke(build(), words)
    assert done.exit_code == 0, done.output
    assert "real pictures: 0.0" in done.output
    shards = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
    assert shards == ["samples-00000000.safetensors", "samples-00000008.safetensors"]


def test_a_cache_that_is_too_large_is_told_before_any_is_filled(tmp_path: Path) -> None:
    """Training's six samples would do; the evaluation's are more than that."""
    words = [*flags(tmp_path), "--set", "metrics.num_images=400", "--set", "samples.max_gb=1.0e-4"]
    with pytest.raises(UserError, match=r"^samples.cache: 400 samples take .*metrics.num_images"):
        CliRunner().invoke(
            build(), ["precompute", "recipes/nitro_shapes.yaml", *words], catch_exceptions=False
        )
    assert list(tmp_path.iterdir()) == []


def test_what_the_teacher_lacks_is_told_before_anything_is_loaded() -> None:
    """What only training needs is not asked for."""
    sets = ("samples.cache=x", "teacher={type: sdxl, model: ./gone}", "student.start=./gone.bin")
    command = ["precompute", "recipes/nitro_shapes.yaml"]
    command += [word for each in sets for word in ("--set", each)]
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(build(), command, catch_exceptions=False)
    [line] = str(caught.value).splitlines()
    assert "teacher.model: './gone' is not on this machine; set teacher.model to" in line


def test_a_recipe_without_a_cache_is_refused() -> None:
    command = ["precompute", "recipes/nitro_shapes.yaml", "--set", "samples.cache=null"]
    with pytest.raises(UserError, match=r"samples.cache names no folder to fill"):
        CliRunner().invoke(build(), command, catch_exceptions=False)


def test_a_disk_that_fills_up_leaves_whole_shards_and_the_same_command_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second shard is cut short as the library does it; the first is kept, not made again."""
    command = ["precompute", "recipes/nitro_shapes.yaml", *flags(tmp_path)]
    written = []

    def until_it_is_full(tensors: Any, path: Path, metadata: Any = None) -> None:
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half a shard")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path, metadata)

    monkeypatch.setattr("safetensors.torch.save_file", until_it_is_full)
    said = told(2, *command, capsys=capsys).strip().splitlines()[-1]
    second = tmp_path / "samples-00000004.safetensors"
    assert said.startswith(f"Could not write {second}: I/O error: No space left on device")
    assert said.endswith("free some space or name another folder, and run again.")
    first = tmp_path / "samples-00000000.safetensors"
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {first, tmp_path / "index.json"}
    made = first.stat().st_mtime_ns
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 0, done.output
    assert second.is_file()
    assert first.stat().st_mtime_ns == made
