"""A plan's bytes are those of the state that a run builds, and switches are tried for a card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from distillkit.cli.plan import describe_fit
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.memory import fit
from distillkit.memory.plan import GIB, make_plan, usable
from distillkit.recipe.load import dump_recipe, load_recipe
from distillkit.recipe.schema import Recipe, RunConfig
from distillkit.training.models.optimizers import optimizer_tensors
from tests.distillkit.world import MeanGuessConfig, trainer, world_recipe


def size(tensors: Sequence[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


def test_bytes_of_a_plan_are_those_of_a_run(tmp_path: Path) -> None:
    recipe = world_recipe(losses=[{"type": "hinge"}, MeanGuessConfig()], refresh=None)
    parts = {part.name: part for part in make_plan(recipe).parts}
    run = trainer(recipe, tmp_path)
    state = run.state
    [critic] = state.critics
    assert state.critic_optimizer is not None
    assert state.ema is not None
    network, heads = state.student.network.module, critic.pool.heads
    [guess] = state.aux_networks
    [(_, panel)] = state.draw_panels(0, 1)
    drawn = critic.parameters(panel.head_ids)
    for p in heads.parameters():  # as when every head has been drawn once
        p.grad = torch.zeros_like(p)
    run.step(0)
    for name, module, gradients in (
        ("student", network, list(network.parameters())),
        ("heads", heads, drawn),
        ("losses' networks", guess, list(guess.parameters())),
        ("teacher", state.samples.teacher.modules()[0], []),
        ("backbone", critic.backbone.modules()[0], []),
    ):
        assert parts[name].weights == size(list(module.parameters())), name
        assert parts[name].gradients == size(gradients), name
    assert parts["EMA"].weights == size(list(state.ema.weights.values()))
    assert parts["student"].optimizer == size(
        [*optimizer_tensors(state.student_optimizer).values()]
    )
    critics = parts["heads"].optimizer + parts["losses' networks"].optimizer
    assert critics == size([*optimizer_tensors(state.critic_optimizer).values()])


@pytest.mark.parametrize("draw", ["one", "per-picture"])
@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
def test_a_plan_counts_every_critic(tmp_path: Path, draw: str, updates: str) -> None:
    """Two critics, of which the second has a narrower backbone and one head a slot."""
    one = world_recipe()
    assert one.pool is not None
    pool = one.pool.model_copy(update={"draw": draw})
    fewer = pool.model_copy(update={"heads_per_slot": 1})
    critics = {
        "near": {"backbone": ExampleBackboneConfig(), "pool": pool},
        "far": {"backbone": ExampleBackboneConfig(width=6), "pool": fewer},
    }
    optim = one.optim.model_copy(update={"updates": updates})
    recipe = world_recipe(critics=critics, backbone=None, pool=None, refresh=None, optim=optim)
    parts = {part.name: part for part in make_plan(recipe).parts}
    state = trainer(recipe, tmp_path).state
    heads = [p for critic in state.critics for p in critic.pool.heads.parameters()]
    frozen = [p for c in state.critics for m in c.backbone.modules() for p in m.parameters()]
    drawn = [p for c, panel in state.draw_panels(0, 1) for p in c.parameters(panel.head_ids)]
    assert len(state.critics) == 2
    assert parts["heads"].weights == size(heads)
    assert parts["heads"].gradients == size(drawn)
    assert parts["backbone"].weights == size(frozen)


def test_offloaded_heads_leave_the_device_to_the_drawn_ones(tmp_path: Path) -> None:
    plan = make_plan(world_recipe())
    less = make_plan(world_recipe(run=RunConfig(batch=4, offload_heads=True)))
    heads, drawn = ({part.name: part for part in p.parts}["heads"] for p in (plan, less))
    assert heads.weights == drawn.weights + less.offloaded
    assert 0 < drawn.weights == drawn.gradients == heads.gradients
    assert less.peak < plan.peak
    assert plan.offloaded == 0


@pytest.mark.usefixtures("examples_installed")
def test_switches_are_tried_in_order_until_the_card_holds_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card a little smaller than the run's peak, and one that nothing fits."""
    file = tmp_path / "mine.yaml"
    file.write_text(dump_recipe(world_recipe()))
    asked: list[list[str]] = []

    def load(sets: Sequence[str]) -> Recipe:
        asked.append(list(sets))
        return load_recipe(file, sets).recipe

    monkeypatch.setattr(fit, "LEAST", 1.0)
    plan = make_plan(load([]))
    card = (plan.peak * 0.99 - usable(0)) / (usable(1) - usable(0))
    assert plan.fits(card / 0.98)
    assert not plan.fits(card)
    [(_, found), (_, none)] = fit.find_fits(load, (0.1, card), plan)
    assert none is None
    assert found is not None
    assert found.plan.fits(card)
    assert make_plan(load_recipe(file, found.sets).recipe).peak == found.plan.peak
    assert asked[1] == ["run.precision=bf16"]
    assert any("optim.student.bits=8" in sets for sets in asked)
    assert any("run.batch=2" in sets for sets in asked)


def test_a_switch_sets_its_field_in_all_critics_and_losses_that_have_it() -> None:
    found = [switch.sets for switch in fit.switches(load_recipe("nitro_shapes").recipe)]
    critics = ("one-step", "two-steps", "four-steps")
    assert ("run.offload_heads=true",) in found
    checkpoints = [f"critics.{name}.backbone.gradient_checkpointing=true" for name in critics]
    assert tuple(checkpoints) in found
    assert ("losses.1.gradient_checkpointing=true",) in found


def test_lines_for_a_card_show_a_list_as_a_recipe_has_it() -> None:
    sets = ("losses.1.gradient_checkpointing=true", "run.offload_heads=true")
    made = make_plan(load_recipe("nitro_shapes", sets).recipe)
    [_, *lines, _] = describe_fit(24, fit.Fit(sets, made), made, "nitro_shapes", [])
    assert yaml.safe_load("\n".join(lines)) == {
        "losses": [
            {"type": "relativistic-paired"},
            {
                "type": "distribution-matching",
                "guidance": 2.0,
                "steps": [1],
                "gradient_checkpointing": True,
            },
        ],
        "run": {"offload_heads": True},
    }


def test_a_card_keeps_something_for_itself() -> None:
    assert usable(24) < 24 * GIB


LONG = {"iterations": 20}


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_flops_of_a_roll_out_are_counted_once(steps: int) -> None:
    """A run of one length has nothing beside the iteration that was counted, whatever its length;
    its forward passes are as many as it has steps."""
    fixed = {"type": "fixed", "steps": steps} | LONG
    one = make_plan(world_recipe(refinement={"type": "fixed"} | LONG))
    made = make_plan(world_recipe(refinement=fixed))
    assert (made.steps, made.rollout) == (steps, 0)
    assert made.flops["student: forward"] == steps * one.flops["student: forward"]


@pytest.mark.parametrize("reach", [1, 4])
def test_the_mean_iteration_does_not_depend_on_which_was_counted(reach: int) -> None:
    """Ten iterations of one step and ten of four cost the mean of both."""
    stages = {"type": "bottom-up", "stages": {1: 10, 4: 10}, "replay": 0}
    student = world_recipe().student.model_copy(update={"gradient_steps": reach})
    both = [
        make_plan(world_recipe(student=student, refinement={"type": "fixed", "steps": n} | LONG))
        for n in (1, 4)
    ]
    made = make_plan(world_recipe(student=student, refinement=stages))
    assert made.steps == (4 if reach > 1 else 1)
    # A roll-out's first layer needs no gradient of what it is given, which is all that differs.
    one, four = (sum(plan.flops.values()) for plan in both)
    assert sum(made.flops.values()) + made.rollout == pytest.approx((one + four) / 2, rel=0.05)


def test_gradients_through_more_steps_cost_what_they_keep() -> None:
    """Of the last stage's four steps, each that a gradient reaches keeps a graph of its own."""
    student = world_recipe().student
    graphs = []
    for steps in (1, 2, 3, 4):
        deeper = student.model_copy(update={"gradient_steps": steps})
        graphs.append(make_plan(world_recipe(student=deeper)).dry.student_graph)
    more = [after - before for before, after in pairwise(graphs)]
    assert min(graphs[0], more[0]) > 0
    assert more == [more[0]] * 3
