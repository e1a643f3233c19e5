"""Flaws that show in a short run, and flaws of a whole plugin, are told in sentences too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.refresh import ExampleRefreshConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.memory.plan import make_plan
from distillkit.recipe.schema import SamplesConfig
from distillkit.training.guard import PartError
from distillkit.values import Panel
from tests.distillkit.testing.flaws import flawed, rebuilt


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


def said_of(*parts: Any, **fields: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        testing.check_run(*parts, **fields)
    return str(caught.value)


def test_a_loss_that_looks_across_the_batch_is_found() -> None:
    """The same pictures twice give the same value, and two micro-batches another."""

    def term(sound: Any, batch: Any) -> Any:
        gap_B = (batch.fake_BCHW - batch.real_BCHW).square().mean((1, 2, 3))
        return (gap_B / gap_B.max()).mean()

    across = flawed(ExampleLossConfig, student=term)
    testing.check(across)
    said = said_of(across)
    assert "micro-batches do not add up to one larger batch: the student's loss is 0." in said


def test_state_that_no_checkpoint_has_is_found() -> None:
    """A weight that falls with the steps that this process has made."""

    def change(part: Any, *_: Any) -> Any:
        weight, sound = [1.0], part.critic

        def critic(batch: Any) -> Any:
            term = sound(batch)
            return None if term is None else term * weight[0]

        object.__setattr__(part, "critic", critic)
        object.__setattr__(part, "after_critic_step", lambda heads: weight.append(weight.pop() / 2))
        return part

    falling = rebuilt(ExampleLossConfig, change)
    testing.check(falling)
    assert "a run that was resumed from a checkpoint ends with another" in said_of(falling)


def test_what_a_part_raises_in_a_run_is_a_sentence() -> None:
    late = flawed(ExampleRefreshConfig, pick=lambda s, i, heads, g: {0: [], 1: [0]}[i])
    said = said_of(late)
    assert (
        "refresh 'example' of tests.distillkit.testing.flaws failed in pick(): KeyError: 2" in said
    )
    assert "Traceback" not in said
    assert "build(): KeyError: 'x'" in said_of(rebuilt(ExampleRefreshConfig, lambda p: {}["x"]))


def test_a_buffer_of_the_teacher_that_moves_is_found() -> None:
    def change(part: Any) -> Any:
        part.denoiser.module.register_buffer("calls", torch.zeros(()))
        sound = part.encode

        def encode(prompts: Any) -> Any:
            part.denoiser.module.calls += 1
            return sound(prompts)

        part.encode = encode
        return part

    assert "a frozen weight of the teacher or the bac" in said_of(
        rebuilt(ExampleTeacherConfig, change)
    )


def test_a_value_that_is_read_is_found_in_the_plan_of_a_run() -> None:
    def term(sound: Any, batch: Any) -> Any:
        return sound(batch) * (1 + 0 * sound(batch).item())

    reads = flawed(ExampleLossConfig, student=term)
    said = said_of(reads)
    assert "plan: loss 'example' of tests.distillkit.testing.flaws failed in student()" in said
    assert f"({__file__}:" in said


@pytest.mark.parametrize(
    ("part", "call"),
    [
        (flawed(ExampleLossConfig, critic=lambda s, batch: float(s(batch))), "critic()"),
        (flawed(ExampleTeacherConfig, decode=lambda s, x: s(x) * x.max().item()), "decode()"),
        (
            flawed(ExampleTeacherConfig, sample=lambda s, x, *a: s(x.cpu(), *a)),
            "sample()",
        ),
        (
            flawed(ExampleBackboneConfig, features=lambda s, x, *a: s(x, *a) if x.max() else []),
            "features()",
        ),
    ],
)
def test_a_plan_names_the_part_that_reads_a_value(part: ComponentConfig, call: str) -> None:
    label = f"{part.socket} 'example' of tests.distillkit.testing.flaws"
    with pytest.raises(PartError) as caught:
        make_plan(testing.recipe(part))
    assert str(caught.value).startswith(f"{label} failed in {call}")
    assert str(caught.value).endswith("`float()` or `if tensor` in what runs on the device")


def test_a_plan_of_real_pictures_reads_none() -> None:
    for cache, encoded in ((None, True), ("there", False)):
        samples = SamplesConfig(real="pictures", real_cache=cache)
        dry = make_plan(testing.recipe(samples=samples)).dry
        assert ("encoding of pictures" in dry.flops) == encoded


def test_runs_of_several_critics_and_of_alternating_updates_pass() -> None:
    critic = {"backbone": ExampleBackboneConfig(), "pool": ExamplePoolConfig()}
    two = {"one": critic | {"refresh": ExampleRefreshConfig(age=2)}, "two": critic}
    testing.check_run(critics=two, backbone=None, pool=None, refresh=None)
    testing.check_run(optim=testing.recipe().optim.model_copy(update={"updates": "alternating"}))


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
        "class Taken(Mine):\n"
        "    'Takes a name.'\n"
        "    type: Literal['random'] = 'random'\n"
        "@hookimpl\n"
        "def distillkit_register_refreshes(): return [Mine, Taken]\n"
    )
    (tmp_path / "dk_empty.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AssertionError) as caught:
        testing.check_plugin("dk_heavy")
    said = str(caught.value)
    assert "importing it loads torch: import that in `build`" in said
    assert "refresh 'mine' has no docstring" in said
    assert "refresh 'mine': the field `age` has no docstring under it" in said
    assert "refresh 'random' is brought by plugin 'nitrofusion' (distillkit " in said
    assert "by plugin 'dk_heavy' (? ?); a built-in name can't be replaced: choose another" in said
    with pytest.raises(AssertionError, match="it has no hook"):
        testing.check_plugin("dk_empty")


def test_a_named_recipe_takes_parts_by_their_sockets() -> None:
    two = (ExampleLossConfig(target=2), ExampleLossConfig(target=3))
    recipe = testing.recipe(*two, ExamplePoolConfig(copies=5), refresh=None)
    assert [loss.model_dump()["target"] for loss in recipe.losses] == [2, 3]
    assert (recipe.pool, recipe.refresh) == (ExamplePoolConfig(copies=5), None)
