"""`distillkit plan` on the examples: what it shows beside memory, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from distillkit.recipe.load import dump_recipe
from tests.distillkit.launch import command
from tests.distillkit.world import world_recipe

pytestmark = pytest.mark.usefixtures("examples_installed")


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(dump_recipe(world_recipe()))


def plan(*sets: str) -> int:
    return command("plan", "mine.yaml", *(word for each in sets for word in ("--set", each)))


def test_it_shows_flops_disk_and_lives(capsys: Any) -> None:
    """In a unit in which small models are not zero. Prompts are not read, and may be missing."""
    assert plan("prompts={type: text, path: gone.txt}") == 0
    out = capsys.readouterr().out
    gone = (
        r"^note: prompts\.path: there is no gone\.txt here .*\. A run will need it; this does not$"
    )
    assert re.search(gone, out, re.M)
    assert "An iteration, MFLOP" in out
    whole = re.search(r"^iteration with a one-step roll-out +([\d,.]+) ", out, re.M)
    assert whole is not None
    assert 1 <= float(whole[1].replace(",", "")) < 1000
    assert re.search(r"^checkpoints: 2 kept, 1 being written +0\.00\d *$", out, re.M)
    assert re.search(r"^snapshots: 4 +0\.000 *$", out, re.M)
    lives = "a head lives 10 iterations and is trained 2.5 times, counted over 500 iterations"
    assert f"\nHeads: {lives}\n" in out


def test_what_check_refuses_is_refused(capsys: Any) -> None:
    assert plan("pool.levels=[7]", "pool.width=16") == 2
    err = capsys.readouterr().err
    assert "pool.levels: there is no level 7" in err
    assert "Traceback" not in err
