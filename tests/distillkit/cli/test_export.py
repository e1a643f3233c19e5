"""`distillkit export` with an exporter that keeps its contract, and with those that do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distillkit import testing
from distillkit.atomic import appearing, save_tensors
from distillkit.examples.exporter import ExampleExporterConfig
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from distillkit.training.build import build_models
from tests.distillkit.launch import command
from tests.distillkit.testing.flaws import flawed, rebuilt

pytestmark = pytest.mark.usefixtures("examples_installed")
LABEL = "exporter 'example' of tests.distillkit.testing.flaws"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of the examples with one snapshot."""
    recipe, folder = testing.recipe(), RunFolder(tmp_path / "run")
    folder.create(dump_recipe(recipe), {}, 1)
    weights = build_models(recipe).network.module.named_parameters()
    save_tensors(folder.snapshot("mixed"), dict(weights))
    return folder.path


def export(run: Path, *options: str) -> int:
    return command("export", run, "--to", "example", *options)


def test_an_export_says_what_it_wrote(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(run, "--set", "dtype=float32") == 0
    written = run / "exports/student-example.safetensors"
    assert capsys.readouterr().out.endswith(
        f"{written}\n  2 tensors in float32; timestep shift 500\n"
    )
    assert load_file(written).keys() == {"weight", "bias"}
    assert export(run) == 0  # over the first


def test_what_a_killed_export_left_goes_with_the_next_one(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run is never started again, and a torn file may take gigabytes."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with appearing(run / "exports/student-example.safetensors") as temporary:
        temporary.write_bytes(bytes(2_000_000))
        torn = temporary.with_name(temporary.name.replace(f".{os.getpid()}.", f".{process.pid}."))
        shutil.copy(temporary, torn)
    assert export(run) == 0
    assert "Removed 2.0 MB of an unfinished export\n" in capsys.readouterr().out
    assert not torn.exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            flawed(ExampleExporterConfig, export=lambda *a: []),
            "breaks its contract: export() wrote nothing to ",
        ),
        (
            flawed(ExampleExporterConfig, export=lambda s, *a: s(*a) and "a file"),
            "exports/student-example.safetensors and returned 'a file', not a list of lines",
        ),
        (
            flawed(ExampleExporterConfig, export=lambda s, *a: {}["weights"]),
            # The line of the wrapper in `flaws.py`: the first folder outside the core.
            f"failed in export(): KeyError: 'weights' ({flawed.__code__.co_filename}:",
        ),
        (
            rebuilt(ExampleExporterConfig, lambda part: None),
            "breaks its contract: build() returned None",
        ),
    ],
    ids=["nothing", "no lines", "raises", "not built"],
)
def test_an_exporter_that_breaks_its_contract_is_named_in_a_sentence(
    run: Path,
    config: Any,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("distillkit.cli.export.configure_exporter", lambda *_: config)
    assert export(run) == 2
    error = capsys.readouterr().err
    assert f"{LABEL} " in error
    assert said in error
    assert "Traceback" not in error


def test_an_exporter_that_leaves_the_old_file_wrote_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run) == 0
    config = flawed(ExampleExporterConfig, export=lambda *a: ["all is well"])
    monkeypatch.setattr("distillkit.cli.export.configure_exporter", lambda *_: config)
    assert export(run) == 2
    assert "wrote nothing to" in capsys.readouterr().err
