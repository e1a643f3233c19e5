"""Files as others find them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distillkit import atomic
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


def test_tensors_that_share_their_values_are_each_written_whole(tmp_path: Path) -> None:
    """As of a network with tied weights, whose every name is loaded again; and parts of a whole."""
    whole = torch.arange(6.0)
    table = whole.view(2, 3)
    shared = {"a": whole, "tied": whole, "row": table[1], "column": table[:, 1]}
    save_tensors(tmp_path / "one.safetensors", shared | {"none": whole[:0], "no": whole[:0]})
    found = load_file(tmp_path / "one.safetensors")
    assert found.keys() == {*shared, "none", "no"}
    assert all(torch.equal(found[name], tensor) for name, tensor in shared.items())


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_all_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Else a power cut could leave the name with nothing, or with half, behind it."""
    flushed: list[tuple[str, bool]] = []
    target = tmp_path / "folder"
    if there:
        target.mkdir()

    def fsync(handle: int) -> None:
        named = Path(f"/proc/self/fd/{handle}").resolve()
        flushed.append((named.name, (target / "inside").exists()))

    monkeypatch.setattr("os.fsync", fsync)
    with appearing(target) as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("new")
    assert flushed == [("inside", False), (tmp_path.name, True)]


def test_a_file_system_without_modes_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    save_tensors(tmp_path / "one.safetensors", {"weight": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def folder_of(path: Path, text: str) -> None:
    with appearing(path) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text(text)


class Killed(BaseException):
    """The process ends here."""


def killed(*_: object) -> None:
    raise Killed


def test_a_published_folder_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one until the new one is whole; they change places in one step."""
    place, seen = tmp_path / "student", []
    folder_of(place, "old")
    exchange = atomic._exchange

    def watched(one: Path, other: Path) -> bool:
        seen.append([(path / "file").read_text() for path in (one, other)])
        return exchange(one, other)

    monkeypatch.setattr(atomic, "_exchange", watched)
    monkeypatch.setattr("os.rename", killed)  # which would leave a gap
    folder_of(place, "new")
    assert seen == [["new", "old"]]
    assert (place / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_kill_before_the_swap_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "student", "old")
    monkeypatch.setattr(atomic, "_put", killed)
    monkeypatch.setattr(atomic, "_remove", lambda path: None)  # a kill runs no clean-up
    with pytest.raises(Killed):
        folder_of(tmp_path / "student", "new!")
    assert (tmp_path / "student" / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    assert atomic.remove_unfinished(tmp_path) == len("new!")
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("swaps", [True, False])
def test_what_a_killed_process_of_the_same_number_left_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    """In a container that is started again every process has its old number: 1."""
    mine = f"student.{atomic._host()}.{os.getpid()}"
    folder_of(tmp_path / "student", "old")
    for kind in ("part", "old"):
        (tmp_path / f".{mine}.{kind}").mkdir()
        (tmp_path / f".{mine}.{kind}" / "torn").write_text("half")
    if not swaps:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    folder_of(tmp_path / "student", "new")
    assert [f.name for f in (tmp_path / "student").iterdir()] == ["file"]
    assert (tmp_path / "student" / "file").read_text() == "new"
    assert atomic.remove_unfinished(tmp_path) == (len("half") if swaps else 0)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_without_an_atomic_swap_a_kill_in_between_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems can't exchange two names: the old folder gets its own back at a start."""
    folder_of(tmp_path / "student", "old")
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    folder_of(tmp_path / "student", "newer")
    assert (tmp_path / "student" / "file").read_text() == "newer"
    rename, calls = os.rename, []

    def once(one: Path, other: Path) -> None:
        calls.append(one)
        if len(calls) == 2:
            raise Killed
        rename(one, other)

    monkeypatch.setattr("os.rename", once)
    monkeypatch.setattr(atomic, "_remove", lambda path: None)
    with pytest.raises(Killed):
        folder_of(tmp_path / "student", "newest")
    assert not (tmp_path / "student").exists()
    monkeypatch.undo()
    assert atomic.remove_unfinished(tmp_path) == len("newest")
    assert (tmp_path / "student" / "file").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_only_what_dead_processes_of_this_machine_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "ner").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    host = atomic._host()
    torn = tmp_path / "in" / "ner" / f".a.safetensors.{host}.{process.pid}.part"
    torn.write_bytes(bytes(7))
    stay = [f".a.{host}.{os.getppid()}.part", f".a.elsewhere-{host}.{process.pid}.part", ".a.part"]
    stay += [f".a.{host}.{process.pid}.parts", "a.part", ".lock"]
    for name in stay:
        (tmp_path / name).write_text("x")
    assert atomic.remove_unfinished(tmp_path / "in", "ner") == 0
    assert atomic.remove_unfinished(torn.parent, "a") == 0
    assert torn.exists()
    assert atomic.remove_unfinished(tmp_path) == 7
    assert {path.name for path in tmp_path.iterdir()} == {*stay, "in"}
    assert not torn.exists()
    assert atomic.remove_unfinished(tmp_path / "nowhere") == 0
