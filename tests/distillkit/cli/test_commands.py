"""The command: what it prints, how it ends, and what it does not import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit import __version__
from distillkit.hookspecs import hookimpl
from distillkit.registry.entry_points import BrokenPlugin, Installed, register
from distillkit.registry.registry import Origin
from tests.distillkit.fakes import RECIPE, RandomRefresh, fake_plugins
from tests.distillkit.launch import command

HEAVY = {"torch", "numpy", "diffusers", "transformers", "accelerate", "PIL", "matplotlib", "jinja2"}


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes in place of what is installed, one of them broken."""
    found = fake_plugins()
    found.broken.append(BrokenPlugin(Origin("theirs", "distillkit-theirs", "2.0"), "no licence"))
    monkeypatch.setattr("distillkit.registry.entry_points.installed", lambda: found)
    monkeypatch.setattr("distillkit.recipe.load.installed", lambda: found)
    monkeypatch.setattr("distillkit.recipe.preflight.installed", lambda: found)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "my.yaml"
    file.write_text(RECIPE)
    return file


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out == f"distillkit {__version__}\n"


def test_plugins_list_shows_parts_and_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("plugins", "list") == 0
    out = capsys.readouterr().out
    assert re.search(r"^refresh +random +Replace a random share\. +fakes +1\.0 *$", out, re.M)
    assert "broken: plugin 'theirs' (distillkit-theirs 2.0)\n  no licence\n" in out


def test_plugins_list_wraps_what_a_narrow_terminal_cannot_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every word is there still, and no line is longer than the terminal."""
    command("plugins", "list")
    whole = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command("plugins", "list")
    wrapped = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) > 70
    assert max(map(len, wrapped.splitlines())) <= 70
    assert sorted(wrapped.split()) == sorted(whole.split())


def test_check_shows_what_a_valid_recipe_says(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("check", recipe, "--set", "refresh.fraction=0.5", "--set", "run.seed=3") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{recipe} is valid." in out
    for words in (
        "refresh random fraction=0.5",
        "losses.1 distance weight=1.0, ramp=0, steps=[], power=l1",
        "refinement fake stages={1: 600, 2: 200}",
        "optim student=(lr=1e-05, betas=[0.0, 0.99], weight_decay=0.0, clip=none",
        "seed=3",
    ):
        assert words in out


def test_check_of_a_recipe_whose_file_is_missing_says_what_to_do(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = '{type: list, prompts: [a cat, "off", "1e-4"]}'
    recipe.write_text(RECIPE.replace(given, "{type: text, path: gone.txt}"))
    assert command("check", recipe) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{recipe} is a valid recipe, and a run of it would stop here:",
        f"{recipe}:2:23: prompts.path: there is no gone.txt here (the working directory is "
        f"{Path.cwd()}): put it there, or name another with `--set prompts.path=...`",
    ]


def test_check_says_which_package_and_version_brings_each_part(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("check", recipe) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for part in ("prompts list", "pool fake", "refresh random", "loss hinge", "metrics example"):
        assert lines.count(f"{part} fakes (fakes 1.0)") == 1


def test_plugins_list_tells_of_a_name_that_two_bring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    """And a recipe that uses it is refused with the same sentence."""
    found = Installed()
    for name in ("mine", "yours"):
        module = SimpleNamespace(distillkit_register_refreshes=hookimpl(lambda: [RandomRefresh]))
        register(found, module, Origin(name, f"distillkit-{name}", "1.0"))
    for module in ("registry.entry_points", "recipe.load", "recipe.preflight"):
        monkeypatch.setattr(f"distillkit.{module}.installed", lambda: found)
    sentence = (
        "refresh 'random' is brought by plugin 'mine' (distillkit-mine 1.0) and by plugin 'yours' "
        "(distillkit-yours 1.0). Uninstall one of them, or leave one out with "
        "DISTILLKIT_DISABLED_PLUGINS"
    )
    assert command("plugins", "list") == 0
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert command("check", recipe) == 2
    assert f"{recipe}:7:11: refresh.type: {sentence}" in capsys.readouterr().err
    assert command("plugins", "show", "random") == 2
    assert capsys.readouterr().err == f"{sentence}\n"


def test_check_says_everything_that_is_wrong_and_exits_with_2(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(RECIPE.replace("batch: 16", "batch: 0"))
    assert command("check", recipe, "--set", "refresh.type=randon") == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second, note = err.splitlines()
    assert first.startswith(f"{recipe}:17:7: run.batch: Input should be greater than or equal to 1")
    assert second.startswith("--set refresh.type=randon: refresh.type: no refresh 'randon'; did")
    assert note == "note: plugin 'theirs' (distillkit-theirs 2.0) is broken: no licence"


@pytest.mark.parametrize(
    "args", [("chekc",), ("check",), ("check", "x", "--st", "a=b"), ("check", "x")]
)
def test_bad_usage_exits_with_2_and_no_traceback(
    args: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*args) == 2
    err = capsys.readouterr().err
    assert err.strip()
    assert "Traceback" not in err


def test_recipes_list_shows_names_and_headers(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit.recipe.load.find_recipes", lambda: {"mine": recipe})
    assert command("recipes", "list") == 0
    assert re.search(r"^mine +A recipe of fakes\. *$", capsys.readouterr().out, re.M)


def test_plugins_show_prints_fields_and_lines_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("plugins", "show", "random") == 0
    out = capsys.readouterr().out
    assert out.startswith("refresh 'random'  Replace a random share.\nplugin 'fakes' (fakes 1.0)\n")
    assert re.search(r"^fraction +number, 0 to 1 +0\.01 +Share of the pool that", out, re.M)
    assert "\nrefresh: {type: random, fraction: 0.01}\n" in out
    assert command("plugins", "show", "example") == 2
    assert capsys.readouterr().err.startswith(
        "'example' names 4 parts; say which: --socket teacher"
    )


def test_plugins_show_answers_for_the_recipes_own_sections_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("plugins", "show", "samples") == 0
    out = capsys.readouterr().out
    assert out.startswith("samples: a section of recipes, and no part.  The teacher's samples, ")
    assert re.search(r"^count +whole number, at least 1 or none +null +Distinct pairs", out, re.M)
    assert "In a recipe:" not in out
    assert command("plugins", "show", "optim.critic") == 0
    assert re.search(r"^weight_decay +number, at least 0 +0.0 ", capsys.readouterr().out, re.M)
    assert command("plugins", "show", "warmup") == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^losses +list of \(loss, a mapping with `type`\) +\[\] +Losses of", out, re.M
    )
    assert command("plugins", "show", "smaples") == 2
    assert command("plugins", "show", "optim.lr") == 2


def test_schema_prints_or_writes_what_editors_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("schema") == 0
    text = capsys.readouterr().out
    assert json.loads(text)["title"] == "distillkit recipe"
    assert command("schema", "-o", str(tmp_path / "r.json")) == 0
    assert (tmp_path / "r.json").read_text() == text
    assert "\n# yaml-language-server: $schema=r.json\n" in capsys.readouterr().out


def test_recipes_show_prints_the_file(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("recipes", "show", recipe) == 0
    assert capsys.readouterr().out == RECIPE


def test_recipes_copy_makes_a_recipe_that_editors_check(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("distillkit.recipe.copy.installed", fake_plugins)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert command("recipes", "copy", recipe, "mine") == 0
    assert "distillkit run mine/my.yaml\n" in capsys.readouterr().out
    head, body = (tmp_path / "mine" / "my.yaml").read_text().split("prompts:", 1)
    assert head == "# A recipe of fakes.\n# yaml-language-server: $schema=recipe.schema.json\n"
    assert RECIPE.endswith(body)
    assert json.loads((tmp_path / "mine" / "recipe.schema.json").read_text())
    assert command("recipes", "copy", recipe, "mine") == 2
    assert capsys.readouterr().err.startswith("mine/my.yaml is there already; name another file")
    assert command("recipes", "copy", recipe, "new.txt") == 2
    assert capsys.readouterr().err == "new.txt: a recipe's name ends in .yaml\n"
    assert command("recipes", "copy", "mine/my.yaml", "again.yaml") == 0
    assert (tmp_path / "again.yaml").read_text() == head + "prompts:" + body


QUICK = ["--help", "plugins list", "plugins --help", "recipes list"]
QUICK += ["plugins show bottom-up", "schema", "recipes show nitro_vibrant", "check nitro_shapes"]


@pytest.mark.parametrize("words", QUICK)
def test_quick_commands_import_nothing_heavy(words: str) -> None:
    """In a process of its own, with every plugin that is installed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "distillkit", *words.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "distillkit.cli" in imported
    assert not {name.partition(".")[0] for name in imported} & HEAVY


def test_a_sentence_not_a_traceback_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distillkit", "check", "nowhere.yaml"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nowhere.yaml: no such file, and no recipe of that name; ")
