"""`distillkit card` on a run written by hand: what stands in it, and what is never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from distillkit.evaluation.grids import save_image, square
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from tests.distillkit.launch import command
from tests.distillkit.world import world_recipe

PAGE = """\
---
library_name: diffusers
pipeline_tag: text-to-image
inference: {parameters: {guidance_scale: 0, timesteps: [499]}}
---
# A model

Draw with `timesteps=[499]`.
"""
INFO = {"far": {"title": "How far", "description": "A distance.", "better": "lower"}}


def rows(**values: float) -> dict[str, Any]:
    return {key: {"far": value, "num_images": 40} for key, value in values.items()}


@pytest.fixture
def run(tmp_path: Path, examples_installed: None) -> Path:
    """A finished run: the student's page, a grid, metrics of its end, and `eval`'s of later."""
    folder = RunFolder(tmp_path / "my run")
    folder.create(dump_recipe(world_recipe()), {}, 1)
    text = folder.recipe.read_text()
    folder.recipe.write_text(text + "# of /home/me\n")
    folder.student.mkdir()
    (folder.student / "README.md").write_text(PAGE)
    save_image(square(torch.rand(4, 3, 8, 8)), folder.grids / "compare.png")
    snapshots = {"start": "start", "student_1": "4-step", "student_1_only": "1-step"}
    made_with = {"seed": 7, "snapshots": snapshots, "steps": {"teacher": 8, "student_1": 1}}
    table = rows(teacher=0.1, start=3.0, student_1=0.5, student_1_only=0.25)
    folder.metrics.write_text(json.dumps(table | {"info": INFO, "made_with": made_with}))
    command = ["distillkit", "eval", "/home/me/runs/a", "--metrics", "far me"]
    judged = rows(start=4.0, student_2=0.75) | {"info": INFO, "made_with": {"command": command}}
    (folder.path / "eval").mkdir()
    (folder.path / "eval" / "metrics.json").write_text(json.dumps(judged))
    return folder.path


def card(*words: Any, code: int = 0) -> None:
    assert command("card", *words) == code


def test_a_card_has_what_the_hub_and_a_reader_need(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card(run, "--license", "mit", "--base-model", "someone/base", "--title", "Mine")
    made = ModelCard.load(run / "card" / "README.md")
    data = made.data.to_dict()
    assert data["license"] == "mit"
    assert data["base_model"] == ["someone/base"]
    assert data["library_name"] == "diffusers"
    assert data["pipeline_tag"] == "text-to-image"
    assert data["inference"] == {"parameters": {"guidance_scale": 0, "timesteps": [499]}}
    assert "distillkit" in data["tags"]
    [first, second] = data["model-index"][0]["results"]
    assert first["metrics"] == [
        {"type": "far", "value": 0.5, "name": "How far (student, 1 step)"}
    ], "the weights that are shared, not those before refinement"
    assert first["dataset"]["name"] == "40 prompts, seed 7"
    assert second["metrics"][0]["name"] == "How far (student, 2 steps)"
    text = made.text
    for said in (
        "# Mine\n",
        "](grid.png)",
        "Draw with `timesteps=[499]`.",
        "| teacher | 8 | 0.100 |",
        "| start | 1 | 3.00 |",
        "| 1-step-only | 1 | **0.250** |",
        "40 pictures a row, noise of seed 7. Made by `distillkit run recipe.yaml`.",
        "Made by `distillkit eval a --metrics 'far me'`.",
        "- How far: A distance. Lower is better.",
        "as named by whoever shares it: mit",
    ):
        assert said in text, said
    assert "# A model" not in text
    assert "/home/me" not in text
    names = {file.name for file in (run / "card").iterdir()}
    assert names == {"README.md", "grid.png", "metrics.json", "recipe.yaml"}
    assert "The card's licence: mit" in capsys.readouterr().out


def test_no_licence_is_guessed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example's teacher does not tell which weights it has."""
    card(run)
    made = ModelCard.load(run / "card" / "README.md")
    assert "license" not in made.data.to_dict()
    assert "base_model" not in made.data.to_dict()
    assert "states no licence that all of it shares" in made.text
    said = capsys.readouterr().out
    assert "The card names no licence: give one with --license" in said
    assert "no base model is named" in said


def test_paths_of_this_machine_stay_here(run: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["samples"]["cache"] = "/home/me/turbo - /home/me/base"
    recipe["prompts"] = {"type": "text", "path": "~/lists/prompts.txt"}
    words = ["distillkit", "eval", "r", "--reference=/home/me/coco", "--set", "fid.weights=/home/x"]
    judged = json.loads((run / "eval" / "metrics.json").read_text())
    judged["made_with"]["command"] = words
    (run / "eval" / "metrics.json").write_text(json.dumps(judged))
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    card(run, "--out", tmp_path / "elsewhere")
    shared = yaml.safe_load((tmp_path / "elsewhere" / "recipe.yaml").read_text())
    assert shared["samples"]["cache"] == "turbo - base"
    assert shared["prompts"]["path"] == "prompts.txt"
    assert shared["optim"] == recipe["optim"]
    text = (tmp_path / "elsewhere" / "README.md").read_text()
    assert "`distillkit eval r --reference=coco --set fid.weights=x`" in text
    assert "/home/" not in text


def test_figures_of_earlier_weights_are_not_the_students(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`eval` of a run that was not finished yet."""
    judged = json.loads((run / "eval" / "metrics.json").read_text())
    judged["made_with"]["snapshots"] = {"start": "start", "student_2": "1-step"}
    (run / "eval" / "metrics.json").write_text(json.dumps(judged))
    card(run)
    assert "Made by `distillkit eval" not in (run / "card" / "README.md").read_text()
    assert "eval/ is of other weights and left out" in capsys.readouterr().out


def test_a_run_without_pictures_and_metrics_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (run / "metrics.json", run / "eval" / "metrics.json", run / "grids/compare.png"):
        file.unlink()
    card(run)
    text = (run / "card" / "README.md").read_text()
    assert "This student has not been measured." in text
    assert "](grid.png)" not in text
    assert "model-index" not in text
    said = capsys.readouterr().out
    assert "There are no metrics of these weights" in said
    assert "There is no grid of pictures" in said


def test_a_run_that_is_not_finished_is_a_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "student").rename(tmp_path / "away")
    card(run, code=2)
    assert "a run publishes its student when it is finished" in capsys.readouterr().err
    card(run, "--of", tmp_path / "away")
    card(tmp_path, "--of", tmp_path / "away", code=2)
    assert "is not a run folder" in capsys.readouterr().err
