"""Files as others find them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillkit.atomic import appearing, save_tensors, write_tensors


def test_others_may_read_what_is_written_as_any_new_file(tmp_path: Path) -> None:
    """safetensors makes files for their owner alone: a run's folder could not be shared."""
    (tmp_path / "new").touch()
    expected = (tmp_path / "new").stat().st_mode
    tensors = {"weight": torch.zeros(2)}
    save_tensors(tmp_path / "one.safetensors", tensors)
    with appearing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        write_tensors(temporary / "inside.safetensors", tensors)
    for name in ("one.safetensors", "folder/inside.safetensors"):
        assert (tmp_path / name).stat().st_mode == expected


def test_a_file_system_without_modes_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    save_tensors(tmp_path / "one.safetensors", {"weight": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]
