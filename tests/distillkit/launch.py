"""Commands: in this process, or in their own, in which the examples are installed too."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from distillkit import examples
from distillkit.cli import main

ROOT = Path(__file__).parents[2]


def command(*words: Any) -> int:
    """Exit code of `distillkit WORDS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def told(code: int, *words: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What `distillkit WORDS` tells, or its error, once its exit code is this one."""
    assert command(*words) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def example_plugins() -> list[EntryPoint]:
    """Each module of `distillkit.examples` as a plugin of its own."""
    names = sorted(p.stem for p in Path(examples.__path__[0]).glob("*.py") if p.stem != "__init__")
    return [EntryPoint(f"example-{n}", f"distillkit.examples.{n}", "distillkit") for n in names]


def with_examples(folder: Path) -> dict[str, str]:
    """The environment of such a process. `folder` gets a distribution's metadata."""
    package = folder / "examples-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: examples\nVersion: 1\n")
    lines = [f"{plugin.name} = {plugin.value}\n" for plugin in example_plugins()]
    (package / "entry_points.txt").write_text("[distillkit]\n" + "".join(lines))
    paths = [str(folder), str(ROOT), str(ROOT / "plugins")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
