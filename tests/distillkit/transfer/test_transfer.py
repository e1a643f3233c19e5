"""W_new = W_custom + strength * (W_student - W_base), from file to file, a tensor at a time."""

from __future__ import annotations

import errno
import math
import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit.exchange import shift_of_file
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from distillkit.transfer import transfer as module
from distillkit.transfer.sweep import read_strengths
from distillkit.transfer.transfer import transfer
from tests.distillkit.world import world_recipe


class NetLayout:
    """A denoiser's tensors start with `net.`, in shared checkpoints with `model.net.`."""

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        found = {k.removeprefix("model."): k for k in keys if "net." in k}
        return found or None

    def what_is(self, keys: Collection[str]) -> str:
        return "a decoder" if "decoder" in keys else "something else"

    def recognises(self, model: Path) -> bool:
        return (model / "shift.txt").is_file()

    def published_shift(self, folder: Path) -> int | None:
        return int((folder / "shift.txt").read_text())


def file(path: Path, value: float, prefix: str = "", **options: Any) -> Path:
    """Two tensors of the net, all `value`; `more` and `metadata` as given."""
    dtype = options.get("dtype", torch.float32)
    net = {"net.w": torch.full((2, 3), value, dtype=dtype), "net.b": torch.full((5,), value)}
    tensors = {prefix + name: w for name, w in net.items()} | options.get("more", {})
    save_file(tensors, path, options.get("metadata"))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    more = {"decoder": torch.arange(3, dtype=torch.int64), "empty": torch.zeros(0, 4)}
    return {
        "student": file(tmp_path / "s.safetensors", 3.0, metadata={"timestep_shift": "250"}),
        "base": file(tmp_path / "b.safetensors", 1.0, "model."),
        "onto": file(
            tmp_path / "c.safetensors",
            10.0,
            "model.",
            dtype=torch.float16,
            more=more,
            metadata={"title": "mine"},
        ),
        "out": tmp_path / "out.safetensors",
    }


def test_the_difference_is_added_and_the_rest_stays(files: dict[str, Path]) -> None:
    """10 + 0.8 * (3 - 1) = 11.6, in the custom file's names and number formats."""
    assert transfer(**files, strength=0.8, layouts=[NetLayout()]) == 250
    found, custom = load_file(files["out"]), load_file(files["onto"])
    assert found.keys() == custom.keys()
    assert torch.equal(found["model.net.w"], torch.full((2, 3), 11.6, dtype=torch.float16))
    assert torch.equal(found["model.net.b"], torch.full((5,), 11.6))
    assert torch.equal(found["decoder"], custom["decoder"])
    assert found["empty"].shape == (0, 4)
    with safe_open(files["out"], "pt") as out:
        assert out.metadata() == {"title": "mine", "timestep_shift": "250"}


def test_sums_are_in_float32(tmp_path: Path) -> None:
    """In bfloat16 256 + 1 is 256, so (257 - 256) summed there would be lost on the way."""
    half = {"dtype": torch.bfloat16}
    paths = {
        "student": file(tmp_path / "s.safetensors", 1.0078125, **half),
        "base": file(tmp_path / "b.safetensors", 1.0, **half),
        "onto": file(tmp_path / "c.safetensors", 1.0, **half),
        "out": tmp_path / "o.safetensors",
    }
    transfer(**paths, strength=0.75, layouts=[NetLayout()])
    # 1 + 0.75 / 128 rounds to 1 + 1 / 128: the strength was not applied to a rounded product.
    assert torch.equal(load_file(paths["out"])["net.w"], torch.full((2, 3), 1.0078125).bfloat16())
    assert float(load_file(paths["out"])["net.b"][0]) == pytest.approx(1.0 + 0.75 / 128)


def test_never_more_than_a_tensor_of_each_file_is_held(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty tensors a file; when one is read, those of the tensor before are gone."""
    names = [f"net.{i}" for i in range(20)]
    for role in ("student", "base", "onto"):
        save_file({name: torch.ones(1000) for name in names}, files[role])
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watched(handle: Any, key: str) -> torch.Tensor:
        nonlocal most
        tensor: torch.Tensor = handle.get_tensor(key)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    monkeypatch.setattr(module, "read", watched)
    transfer(**files, strength=1.0, layouts=[NetLayout()])
    assert len(alive) == 60
    assert most <= 3


def test_the_shift_comes_from_the_file_or_is_given(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"--shift 500: .*s.safetensors states .* shift 250, and"):
        transfer(**files, strength=1.0, layouts=[NetLayout()], shift=500)
    assert not files["out"].exists()
    file(files["student"], 3.0)
    assert transfer(**files, strength=1.0, layouts=[NetLayout()]) is None
    assert shift_of_file(files["out"]) is None
    assert transfer(**files, strength=1.0, layouts=[NetLayout()], shift=500) == 500
    assert shift_of_file(files["out"]) == 500


def test_the_shift_comes_from_the_folder_that_the_student_was_published_in(
    files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "published" / "denoiser").mkdir(parents=True)
    (tmp_path / "published" / "shift.txt").write_text("500")
    files["student"] = file(tmp_path / "published" / "denoiser" / "s.safetensors", 3.0)
    assert transfer(**files, strength=1.0, layouts=[NetLayout()]) == 500
    assert shift_of_file(files["out"]) == 500
    with pytest.raises(UserError, match=r"--shift 250: .*/published states .* shift 500, and"):
        transfer(**files, strength=1.0, layouts=[NetLayout()], shift=250)


@pytest.mark.usefixtures("examples_installed")
def test_the_shift_comes_from_the_run_whose_snapshot_it_is(
    files: dict[str, Path], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(dump_recipe(world_recipe()), {})
    run.snapshot("1-step").parent.mkdir()
    files["student"] = file(run.snapshot("1-step"), 3.0)
    assert transfer(**files, strength=1.0, layouts=[NetLayout()]) == 500
    assert transfer(**files, strength=1.0, layouts=[NetLayout()], shift=500) == 500
    with pytest.raises(UserError, match=r"--shift 250: .*/run states that its student goes"):
        transfer(**files, strength=1.0, layouts=[NetLayout()], shift=250)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def to_decoder(path: Path) -> None:
    save_file({"decoder": torch.zeros(1)}, path)


def of_another_size(path: Path) -> None:
    save_file({"net.w": torch.zeros(7, 3), "net.b": torch.zeros(5)}, path)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_other_names(path: Path) -> None:
    save_file({"net.w": torch.zeros(2, 3), "net.c": torch.zeros(5)}, path)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (Path.unlink, "--base: there is no file"),
        (to_folder, "--base: .* is a folder; name the .safetensors file in it"),
        (cut, "--base: .*b.safetensors cannot be read: .* fetch it again"),
        (
            to_decoder,
            "--base: .*b.safetensors is a decoder, and a denoiser or a whole checkpoint is",
        ),
        (of_another_size, r"net.w is \[7, 3\], and model.net.w is \[2, 3\]"),
        (of_other_names, "1 tensors are absent and 1 do not belong, such as net.b"),
    ],
)
def test_wrong_files_get_a_sentence(files: dict[str, Path], harm: Any, sentence: str) -> None:
    harm(files["base"])
    with pytest.raises(UserError, match=sentence):
        transfer(**files, strength=1.0, layouts=[NetLayout()])
    assert sorted(p.name[0] for p in files["out"].parent.iterdir()) in (list("bcs"), list("cs"))


def test_pickles_are_refused(files: dict[str, Path]) -> None:
    files["base"] = files["base"].rename(files["base"].with_suffix(".bin"))
    with pytest.raises(UserError, match=r"--base: .*b\.bin is no .safetensors file; pickled files"):
        transfer(**files, strength=1.0, layouts=[NetLayout()])


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf])
def test_a_strength_that_is_no_finite_number_is_refused(
    files: dict[str, Path], strength: float
) -> None:
    """Every weight would be NaN."""
    with pytest.raises(UserError, match=f"^--strength {strength}: a finite number, such as 0.8$"):
        transfer(**files, strength=strength, layouts=[NetLayout()])
    assert not files["out"].exists()
    with pytest.raises(UserError, match=f"^--sweep {strength}: a finite number"):
        read_strengths(f"0.4,{strength}")


def test_a_full_disk_leaves_nothing(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensor: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_bytes", full)
    with pytest.raises(UserError, match=r"Could not write .*out.safetensors: No space left"):
        transfer(**files, strength=1.0, layouts=[NetLayout()])
    assert sorted(p.name for p in files["out"].parent.iterdir()) == [
        "b.safetensors",
        "c.safetensors",
        "s.safetensors",
    ]
