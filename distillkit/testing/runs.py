"""`check_run`: a few iterations of training with a part in its place among the examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillkit import api
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
from distillkit.recipe import yaml12
from distillkit.recipe.schema import AdamWConfig, OptimConfig, Recipe, RunConfig, StudentAdamWConfig
from distillkit.registry.registry import Origin, Registry
from distillkit.testing.findings import Findings, fail_with, same, weights_of
from distillkit.training.build import Parts
from distillkit.training.divergence import DivergenceMonitor
from distillkit.training.state import StateTensors, load_state, state_tensors
from distillkit.training.train_state import TrainState
from distillkit.training.trainer import Trainer

ITERATIONS = 6


def recipe(*parts: ComponentConfig, **fields: Any) -> Recipe:
    """A recipe of examples, with `parts` in their sockets, and other `fields` as given."""
    examples: tuple[ComponentConfig, ...] = (
        ExamplePromptsConfig(),
        ExampleTeacherConfig(),
        ExampleStudentConfig(timestep_shift=500, ema=0.9),
        ExampleBackboneConfig(),
        ExamplePoolConfig(),
        ExampleRefreshConfig(age=2),
        ExampleRefinementConfig(iterations=ITERATIONS),
        ExampleMetricsConfig(),
    )
    fields_of: dict[str, Any] = {part.socket: part for part in examples}
    fields_of |= {part.socket: part for part in parts if not isinstance(part, LossConfig)}
    losses = [part for part in parts if isinstance(part, LossConfig)]
    fields_of |= {
        "losses": losses or [ExampleLossConfig()],
        "optim": OptimConfig(student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2)),
        "run": RunConfig(batch=2),
    }
    return Recipe(**fields_of | fields)


def check_run(*parts: ComponentConfig, **fields: Any) -> None:
    """Train a few iterations with `parts` among the examples; `fields` are the recipe's others.

    The recipe is written and read again; heads that were not drawn do not change; what is frozen
    stays frozen; student or heads learn; and a run that was saved half way resumes bit for bit.
    Parts of one family go together: a student that needs its own teacher is checked with it.
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
    text = yaml12.dump(tried.model_dump())
    value = yaml12.parse(text).value
    if Recipe.model_validate(value, context={"registry": registry}) != tried:
        yield "its recipe is another one after it was written as YAML and read again"


def _trains(tried: Recipe) -> Findings:
    trainer = _trainer(tried)
    parts, state = trainer.parts, trainer.state
    end = min(len(trainer.schedule), ITERATIONS)
    frozen, start = _frozen(parts), _trainable(parts)
    saved: StateTensors = {}
    untouched = True
    for i in range(end):
        if i == end // 2:
            saved = _copied(state)
        untouched &= _untouched(trainer, i)
    if not untouched:
        yield "a head changed that was neither drawn nor refreshed"
    if not same(frozen, _frozen(parts)):
        yield "a frozen weight of the teacher or the backbone moved"
    if same(start, _trainable(parts)):
        yield "neither the student nor a head learned anything"
    resumed = _trainer(tried)
    load_state(resumed.state, DivergenceMonitor(), saved)
    for i in range(end // 2, end):
        resumed.step(i)
    one, other = _copied(state), _copied(resumed.state)
    for part in one:
        if not same(list(one[part].values()), list(other[part].values())):
            yield f"a run that was resumed from a checkpoint ends with another {part}"


def _trainer(tried: Recipe) -> Trainer:
    from accelerate import Accelerator

    return api.prepare(tried, "unused", accelerator=Accelerator(cpu=True))


def _untouched(trainer: Trainer, i: int) -> bool:
    """Run iteration `i`; whether heads that were neither drawn nor reset kept their weights."""
    critics = trainer.state.critics
    before = [[weights_of([head]) for head in critic.pool.heads] for critic in critics]
    ages = [critic.updates_N.clone() for critic in critics]
    resets = [critic.reset_iteration_N.clone() for critic in critics]
    trainer.step(i)
    for critic, heads, updates, reset in zip(critics, before, ages, resets, strict=True):
        idle = (critic.updates_N == updates) & (critic.reset_iteration_N == reset)
        for head in idle.nonzero().flatten().tolist():
            if not same(heads[head], weights_of([critic.pool.heads[head]])):
                return False
    return True


def _trainable(parts: Parts) -> list[Tensor]:
    heads = [each.pool.heads for each in parts.critics]
    return weights_of([parts.network.module, *heads, *parts.loss_modules])


def _frozen(parts: Parts) -> list[Tensor]:
    backbones = [m for each in parts.critics for m in each.backbone.modules()]
    modules = [*parts.teacher.modules(), *backbones]
    still = [p for m in modules for p in m.parameters() if not p.requires_grad]
    return [p.detach().clone() for p in still]


def _copied(state: TrainState) -> StateTensors:
    with torch.no_grad():
        tensors = state_tensors(state, DivergenceMonitor())
        return {part: {n: t.clone() for n, t in ts.items()} for part, ts in tensors.items()}
