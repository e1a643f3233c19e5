"""What the documentation shows runs: code, recipes' lines, printed results."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest
import torch
import yaml

from distillkit import api, testing
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import WarmupConfig
from distillkit.registry.entry_points import installed

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    """The page's code blocks; "" for those without a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


def run_block(text: str, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """A code block, executed as a module of its own; its names."""
    module = ModuleType("docs_block")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(text, "docs", "exec"), vars(module))
    return vars(module)


# ---------------------------------------------------------------- plugins


def test_the_worked_loss_keeps_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = blocks("values.md")
    names = run_block(block, monkeypatch)
    [config] = names["distillkit_register_losses"]()
    testing.check(config())
    testing.check_run(config())
    with pytest.raises(ValueError, match="high: should not be below `low`"):
        config(low=1.0, high=0.5)


def test_several_parts_in_one_package(monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [b for b in blocks("plugin.md") if "register_losses" in b]
    names = run_block(block, monkeypatch)
    for hook in ("distillkit_register_losses", "distillkit_register_refreshes"):
        assert all(issubclass(config, ComponentConfig) for config in names[hook]())


def test_a_rule_between_fields_names_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [b for b in blocks("plugin.md") if "misfit" in b]
    config = run_block(block, monkeypatch)["BetweenRefresh"]
    assert config().oldest == 200
    with pytest.raises(ValueError, match="oldest: should not be below `youngest`"):
        config(youngest=10, oldest=9)


def test_a_family_is_checked_with_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [b for b in blocks("plugin.md") if "teacher=" in b]
    run_block(block, monkeypatch)


def test_the_prompts_page_shows_fields_that_there_are() -> None:
    [block] = blocks("sockets/prompts.md", "yaml")
    fields = yaml.safe_load(block)["prompts"]
    config = installed().registry.get("prompts", fields["type"]).config
    assert config.model_validate(fields).name() == "parquet"


# ---------------------------------------------------------------- a model of one's own, Python


def test_the_shifts_factors_are_those_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [block] = [b for b in blocks("own-model.md") if "alpha_bar_T" in b]
    run_block(block, monkeypatch)
    assert capsys.readouterr().out in blocks("own-model.md", "")


def test_the_warmup_of_the_page_is_valid() -> None:
    [block] = [b for b in blocks("own-model.md", "yaml") if "warmup" in b]
    warmup = WarmupConfig.model_validate(yaml.safe_load(block)["warmup"])
    assert [loss.name() for loss in warmup.losses] == ["regression"]


def test_the_pages_score_is_valid_in_the_recipe_that_it_names() -> None:
    [block] = [b for b in blocks("own-model.md", "yaml") if "guidance" in b]
    fields = yaml.safe_load(block)
    own_teacher = ["teacher.lora=null", "teacher.steps=25", "teacher.guidance=5.0"]
    lines = [f"losses={fields['losses']}", f"optim.aux={fields['optim']['aux']}"]
    recipe = load_recipe("nitro_vibrant", [*own_teacher, *lines]).recipe
    score = recipe.losses[1]
    assert list(score.steps) == [1]
    assert score.model_dump()["guidance"] == recipe.teacher.model_dump()["guidance"]


def test_stock_diffusers_gives_the_picture_of_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's block, on a student of the embedded world: 16x16 latents instead of 128x128."""
    from distillkit.training.build import build_models

    student = tmp_path / "student"
    build_models(load_recipe("nitro_shapes").recipe).network.publish(student, 500)
    [block] = [b for b in blocks("own-model.md") if "latents" in b]
    block = block.replace("runs/my-.../student", str(student)).replace("128, 128", "16, 16")
    names = run_block(block.replace("a red fox", "a red ring"), monkeypatch)
    [ours_3HW] = api.sample(student, "a red ring", steps=1, seed=7)
    theirs_3HW = torch.tensor(list(names["image"].tobytes())).view(64, 64, 3).permute(2, 0, 1) / 255
    torch.testing.assert_close(ours_3HW, theirs_3HW, rtol=0, atol=2 / 255)


@pytest.mark.slow
def test_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands but for the size: three iterations, no metrics."""
    import distillkit

    def small(name: str, overrides: list[str]) -> Any:
        sizes = ["warmup.critic=0", "refinement.stages={1: 2}", "metrics=null"]
        sizes += ["run.batch=2", "run.threads=1", "run.held_out=0", "run.previews=1"]
        sizes += ["critics={}", "backbone={type: unet-encoder}"]
        sizes += ["pool={type: dynamic, levels: [2, 9], width: 16, depth: 1}"]
        return load_recipe(name, [*overrides, *sizes])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distillkit, "load_recipe", small, raising=False)
    example, callback, single = blocks("python.md")
    names = run_block(example, monkeypatch)
    assert "report.html" in capsys.readouterr().out
    assert names["images_B3HW"].shape == (4, 3, 64, 64)
    run_block(callback, monkeypatch)["PrintLoss"]().on_iteration(1, 2, None, 0.1)
    metrics = run_block(single, monkeypatch, recipe=names["recipe"])["metrics"]
    assert metrics.spec.trains_student
    with pytest.raises(UserError, match="holds a run already"):
        distillkit.train(names["recipe"], names["run"].path)


def test_the_python_page_names_functions_with_their_arguments() -> None:
    text = (DOCS / "python.md").read_text()
    for name, arguments in re.findall(r"^\| `(\w+)\(([^)]*)\)`", text, re.M):
        known = get_type_hints(getattr(api, name))
        for argument in re.findall(r"\w+(?==|,|$)", arguments):
            assert argument in known or argument in ("False", "None", "name"), (name, argument)
    assert get_args(get_type_hints(api.train)["callback"])[0] is api.Callback
