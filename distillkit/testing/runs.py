"""`check_run`: a few iterations of training with a part in its place among the examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillkit.configs import ComponentConfig, LossConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.prompts import ExamplePromptsConfig
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.examples.refresh import ExampleRefreshConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.randomness import generator
from distillkit.recipe import yaml12 as recipe_yaml
from distillkit.recipe.schema import AdamW, Optim, Recipe, Run, StudentAdamW
from distillkit.registry.registry import Origin, Registry
from distillkit.testing.findings import Findings, fail_with, same, weights_of
from distillkit.training import state
from distillkit.training.build import Parts, build_parts, make_players, make_timeline
from distillkit.training.divergence import Watch
from distillkit.training.step import iterate
from distillkit.training.train_state import Players

ITERATIONS = 6


def recipe(*parts: ComponentConfig, **fields: Any) -> Recipe:
    """A recipe of examples, with `parts` in their sockets, and other `fields` as you say."""
    stand_ins: tuple[ComponentConfig, ...] = (
        ExamplePromptsConfig(),
        ExampleTeacherConfig(),
        ExampleStudentConfig(timestep_shift=500, ema=0.9),
        ExampleBackboneConfig(),
        ExamplePoolConfig(),
        ExampleRefreshConfig(age=2),
        ExampleRefinementConfig(iterations=ITERATIONS),
        ExampleMetricsConfig(),
    )
    said: dict[str, Any] = {part.socket: part for part in stand_ins}
    said |= {part.socket: part for part in parts if not isinstance(part, LossConfig)}
    losses = [part for part in parts if isinstance(part, LossConfig)]
    said |= {
        "losses": losses or [ExampleLossConfig()],
        "optim": Optim(student=StudentAdamW(lr=1e-3), critic=AdamW(lr=1e-2)),
        "run": Run(batch=2),
    }
    return Recipe(**said | fields)


def check_run(*parts: ComponentConfig, **fields: Any) -> None:
    """Train a few iterations with `parts` among the examples; `fields` are the recipe's others.

    The recipe is written and read again; heads that nobody drew do not change; what is frozen
    stays frozen; somebody learns; and a run that was saved half way goes on bit for bit. Parts of
    one family go together: a student that needs its own teacher is checked with that teacher.
    Raises AssertionError with every finding.
    """
    tried = recipe(*parts, **fields)
    what = ", ".join(f"{part.socket} '{part.name()}'" for part in parts) or "the examples"
    fail_with(f"a run with {what}", (*_reads_back(tried), *_trains(tried)))


def _reads_back(tried: Recipe) -> Findings:
    registry = Registry()
    everyone = [getattr(tried, name) for name in type(tried).model_fields]
    everyone += [*tried.losses, *tried.warmup.losses]
    kinds = {type(part) for part in everyone if isinstance(part, ComponentConfig)}
    for kind in kinds:
        registry.add(kind, Origin("testing"))
    text = recipe_yaml.dump(tried.model_dump())
    value = recipe_yaml.parse(text).value
    if Recipe.model_validate(value, context={"registry": registry}) != tried:
        yield "its recipe says something else after it was written as YAML and read again"


def _trains(tried: Recipe) -> Findings:
    parts, players = _set_up(tried)
    timeline = make_timeline(tried, parts)
    end = min(len(timeline), ITERATIONS)
    frozen, started = _frozen(parts), _learners(parts)
    saved: state.State = {}
    untouched = True
    for i in range(end):
        if i == end // 2:
            saved = _copied(players)
        before = _heads(parts)
        idle = _idle(players, i, timeline.turn(i).trains_critic)
        iterate(i, timeline.turn(i), players)
        after = _heads(parts)
        untouched &= all(same(before[head], after[head]) for head in idle)
    if not untouched:
        yield "a head changed that was neither drawn nor refreshed"
    if not same(frozen, _frozen(parts)):
        yield "a frozen weight of the teacher or the backbone moved"
    if same(started, _learners(parts)):
        yield "neither the student nor a head learned anything"
    parts, again = _set_up(tried)
    timeline = make_timeline(tried, parts)
    state.restore(again, Watch(), saved)
    for i in range(end // 2, end):
        iterate(i, timeline.turn(i), again)
    one, other = _copied(players), _copied(again)
    for part in one:
        if not same(list(one[part].values()), list(other[part].values())):
            yield f"a run that went on from a checkpoint ends with another {part}"


def _set_up(tried: Recipe) -> tuple[Parts, Players]:
    from accelerate import Accelerator

    parts = build_parts(tried)
    return parts, make_players(tried, parts, Accelerator(cpu=True))


def _idle(players: Players, i: int, critic_trains: bool) -> list[int]:
    """Heads that iteration `i` must leave alone."""
    if players.critics is None:
        return []
    pool, seed = players.critics.pool, players.seed
    busy: set[int] = set()
    if critic_trains:
        busy |= set(pool.draw(players.deal.total, generator(seed, "panel", i)).heads)
        if players.refresh is not None:
            age_N = i + 1 - players.born_N
            busy |= set(players.refresh.pick(i, age_N, generator(seed, "refresh", i)))
    return [head for head in range(len(pool.heads)) if head not in busy]


def _heads(parts: Parts) -> list[list[Tensor]]:
    return [weights_of([head]) for head in parts.pool.heads] if parts.pool else []


def _learners(parts: Parts) -> list[Tensor]:
    heads = [parts.pool.heads] if parts.pool else []
    return weights_of([parts.network.module, *heads, *parts.loss_modules])


def _frozen(parts: Parts) -> list[Tensor]:
    modules = [*parts.teacher.modules(), *(parts.backbone.modules() if parts.backbone else ())]
    still = [p for m in modules for p in m.parameters() if not p.requires_grad]
    return [p.detach().clone() for p in still]


def _copied(players: Players) -> state.State:
    with torch.no_grad():
        collected = state.collect(players, Watch())
        return {part: {n: t.clone() for n, t in ts.items()} for part, ts in collected.items()}
