"""What exporters and layouts can get wrong. Each is told in a sentence."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.exporter import ExampleExporterConfig
from distillkit.examples.layout import ExampleLayoutConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from tests.distillkit.testing.flaws import Flaws, flawed, said_of, table


def export(change: Any, **more: Any) -> ComponentConfig:
    """`change(sound, network, shift, path)` in the place of `export`."""
    return flawed(ExampleExporterConfig, export=change, **more)


def litter(sound: Any, network: Any, shift: int, path: Path) -> Any:
    path.with_name("notes.txt").write_text("?")
    return sound(network, shift, path)


def numbering() -> Any:
    numbers = count()

    def change(sound: Any, network: Any, shift: int, path: Path) -> list[str]:
        path.write_text(str(next(numbers)))
        return []

    return change


def halves(sound: Any, network: Any, shift: int, path: Path) -> Any:
    network.module.half()
    return sound(network, shift, path)


def rounds(sound: Any, network: Any, shift: int, path: Path) -> Any:
    for p in network.module.parameters():
        p.data.copy_(p.data.half())
    return sound(network, shift, path)


def freezes(sound: Any, network: Any, shift: int, path: Path) -> Any:
    network.module.eval().requires_grad_(False)
    return sound(network, shift, path)


def stills(sound: Any, network: Any, shift: int, path: Path) -> Any:
    """Leaves the network without dropout."""
    network.module.eval()
    return sound(network, shift, path)


def dates(sound: Any, network: Any, shift: int, path: Path) -> list[str]:
    """To the second."""
    path.write_text(datetime.now(UTC).isoformat(timespec="seconds"))
    return []


def zips(sound: Any, network: Any, shift: int, path: Path) -> list[str]:
    """As zipfile does of itself: with the time, in steps of two seconds."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", "1")
    return []


def swaps(sound: Any, network: Any, shift: int, path: Path) -> Any:
    said = sound(network, shift, path)
    network.module = torch.nn.Identity()
    return said


def pickles(sound: Any, network: Any, shift: int, path: Path) -> list[str]:
    torch.save(network.module.state_dict(), path)
    return []


def folder(sound: Any, network: Any, shift: int, path: Path) -> list[str]:
    path.mkdir(exist_ok=True)
    torch.save({}, path / "model.bin")
    return []


def refuses(sound: Any, *_: Any) -> Any:
    raise UserError("for students of another family")


EXPORTERS: Flaws = {
    "suffix": (
        flawed(ExampleExporterConfig, suffix="bin"),
        "suffix: 'bin' should start with a dot, or be empty for a folder",
    ),
    "no suffix": (flawed(ExampleExporterConfig, suffix=None), "suffix: None should start with"),
    "nothing": (export(lambda *a: []), "export(): wrote no file"),
    "nothing at the path": (export(lambda *a: []), "a file should be at its path"),
    "a folder": (export(folder), "export(): a file should be at its path"),
    "no folder": (
        export(lambda s, *a: s(*a), suffix=""),
        "export(): a folder should be at its path",
    ),
    "an empty file": (
        export(lambda s, n, shift, path: path.touch() or []),
        "export(): wrote an empty file",
    ),
    "a line": (export(lambda s, *a: s(*a)[0]), "export(): should return a list of lines"),
    "no lines": (export(lambda s, *a: s(*a) and None), "export(): should return a list of lines"),
    "litter": (export(litter), "export(): left notes.txt beside what it wrote"),
    "a number": (export(numbering()), "the same student gives another file the second time"),
    "a date": (export(dates), "export(): the same student gives another file the second time"),
    "a date in an archive": (export(zips), "the same student gives another file the second time"),
    "half": (export(halves), "export(): changed the student's network: convert a copy of its wei"),
    "rounded": (export(rounds), "export(): changed the student's network"),
    "frozen": (export(freezes), "export(): changed the student's network"),
    "in eval mode": (
        export(stills),
        "changed the student's network: convert a copy of its weights, and leave its modes as the",
    ),
    "swapped": (export(swaps), "export(): changed the student's network"),
    "a pickle": (export(pickles), "export(): student.safetensors is a pickle: write safetensors"),
    "a folder of pickles": (
        export(folder, suffix=""),
        "export(): model.bin is a pickle: write safetensors",
    ),
    "once": (
        export(lambda s, n, shift, path: s(n, shift, path) if not path.exists() else 1 / 0),
        "export(), over what it wrote before, raised ZeroDivisionError",
    ),
    "an exception": (
        export(lambda s, *a: s()),
        "export() raised TypeError: ExampleExporter.export() missing 3 required positional argum",
    ),
}


def layout(**changes: Any) -> ComponentConfig:
    return flawed(ExampleLayoutConfig, **changes)


LAYOUTS: Flaws = {
    "names of nothing": (layout(names=lambda s, keys: {}), "a file without tensors should be None"),
    "no names": (
        layout(names=lambda s, keys: {} if keys else None),
        "names(): a file without the family's tensors should be None",
    ),
    "a strange key": (
        layout(names=lambda s, keys: {"a": "b"} if keys else None),
        "names(): leads to a key that the file does not have",
    ),
    "two names": (
        layout(names=lambda s, keys: dict.fromkeys("ab", "conv.bias") if keys else None),
        "names(): two names lead to one key",
    ),
    "order of keys": (
        layout(names=lambda s, keys: {"a": keys[0]} if keys else None),
        "names() raised TypeError: 'frozenset' object is not subscriptable",
    ),
    "no words": (layout(what_is=lambda s, keys: ""), "what_is(): should describe every file"),
    "recognises all": (
        layout(recognises=lambda s, model: True),
        "recognises(): a path that does not exist is a model of the family to it",
    ),
    "reads what is not there": (
        layout(recognises=lambda s, model: "conv" in model.read_text()),
        "recognises() of a path that does not exist raised FileNotFoundError",
    ),
    "a shift": (
        layout(published_shift=lambda s, folder: 1000),
        "published_shift(): 1000 for a folder that states none, not None",
    ),
    "opens nothing": (
        layout(open=lambda s, *a: None),
        "open(): a folder without a model should be a UserError",
    ),
    "opens badly": (
        layout(open=lambda s, model, *a: (Path(model) / "model.json").read_text()),
        "open() of a folder without a model raised FileNotFoundError",
    ),
}


@table(EXPORTERS)
def test_a_flaw_of_an_exporter_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


@table(LAYOUTS)
def test_a_flaw_of_a_layout_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_an_exporter_may_refuse_the_examples_student_and_not_its_own() -> None:
    student = ExampleStudentConfig().build(ExampleTeacherConfig().build())
    testing.check(export(refuses))
    assert "export() raised UserError: for students of another" in said_of(
        export(refuses), student=student
    )
    testing.check(ExampleExporterConfig(), student=student)


def test_an_exporter_may_write_a_page_about_its_file() -> None:
    def with_page(sound: Any, network: Any, shift: int, path: Path) -> Any:
        path.with_suffix(".txt").write_text("how to load it")
        return sound(network, shift, path)

    testing.check(export(with_page))


def test_a_layout_opens_what_is_a_model(tmp_path: Path) -> None:
    """One that names a model in an empty folder is told; the example refuses all."""
    testing.check(ExampleLayoutConfig())
    with pytest.raises(UserError, match="can't be opened yet"):
        ExampleLayoutConfig().build().open(str(tmp_path), None, "float32")
