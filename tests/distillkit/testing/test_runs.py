"""Flaws that show in a short run, and flaws of a whole plugin, are told in sentences too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit import testing
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.refresh import ExampleRefreshConfig
from distillkit.values import Panel


def test_a_flaw_in_a_run_is_found() -> None:
    """A loss that moves the teacher, and one that nobody learns from."""

    class Meddler(ExampleLossConfig):
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            teacher = args[0].denoiser.module

            def meddle(heads: Any) -> None:
                teacher.bias.data.add_(1)

            object.__setattr__(part, "after_critic_step", meddle)
            return part

    with pytest.raises(AssertionError, match="a frozen weight of the teacher or the backbone mov"):
        testing.check_run(Meddler())
    with pytest.raises(AssertionError, match="neither the student nor a head learned anything"):
        testing.check_run(ExampleLossConfig(weight=0), refresh=None)


def test_a_head_that_nobody_drew_and_that_moves_is_found() -> None:
    class Leaky(ExamplePoolConfig):
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            sound = part.draw

            def draw(batch: int, generator: Any) -> Panel:
                for parameter in part.heads.parameters():
                    parameter.data.add_(0.1)
                return sound(batch, generator)

            part.draw = draw
            return part

    with pytest.raises(AssertionError, match="a head changed that was neither drawn nor refreshed"):
        testing.check_run(Leaky())


def test_a_plugins_flaws_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dk_heavy.py").write_text(
        "import torch\n"
        "from typing import Literal\n"
        "from distillkit.configs import RefreshConfig\n"
        "from distillkit.hookspecs import hookimpl\n"
        "class Mine(RefreshConfig):\n"
        "    type: Literal['mine'] = 'mine'\n"
        "    age: int = 3\n"
        "    def build(self): ...\n"
        "@hookimpl\n"
        "def distillkit_register_refreshes(): return [Mine]\n"
    )
    (tmp_path / "dk_empty.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AssertionError) as caught:
        testing.check_plugin("dk_heavy")
    said = str(caught.value)
    assert "importing it loads torch: import that in `build`" in said
    assert "refresh 'mine' has no docstring" in said
    assert "refresh 'mine': the field `age` has no docstring under it" in said
    with pytest.raises(AssertionError, match="it has no hook"):
        testing.check_plugin("dk_empty")


def test_a_socket_without_checks_is_a_sentence() -> None:
    class Elsewhere(ExampleRefreshConfig):
        socket = "elsewhere"

    with pytest.raises(AssertionError, match="no checks for elsewheres; sockets: teacher, stud"):
        testing.check(Elsewhere())


def test_a_named_recipe_takes_parts_by_their_sockets() -> None:
    two = (ExampleLossConfig(target=2), ExampleLossConfig(target=3))
    recipe = testing.recipe(*two, ExamplePoolConfig(copies=5), refresh=None)
    assert [loss.model_dump()["target"] for loss in recipe.losses] == [2, 3]
    assert (recipe.pool, recipe.refresh) == (ExamplePoolConfig(copies=5), None)
