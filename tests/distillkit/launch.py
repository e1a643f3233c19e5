"""Commands in processes of their own, in which the examples are installed beside distillkit."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path

from distillkit import examples

ROOT = Path(__file__).parents[2]


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
