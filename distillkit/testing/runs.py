"""`check_run`: a few iterations of training with a part in its place among the examples."""

from __future__ import annotations

import math
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
from distillkit.testing.findings import Findings, each, fail_with, same, weights_of
from distillkit.testing.plans import plan_findings
from distillkit.training.build import Parts, build_part
from distillkit.training.divergence import DivergenceMonitor
from distillkit.training.state import StateTensors, load_state, state_tensors
from distillkit.training.train_state import TrainState
from distillkit.training.trainer import Trainer

ITERATIONS = 6
MOST_PROMPTS = 100_000
"""Training's prompts that metrics' are compared with."""


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

    The recipe is written and read again; its plan is made; prompts of metrics are held out;
    micro-batches add up to one larger batch; heads that were not drawn do not change; what is
    frozen stays frozen; student or heads learn; and a run that was saved half way resumes bit for
    bit. Parts of one family go together: a student that needs its own teacher is checked with it.
    Raises AssertionError with every finding.
    """
    tried = recipe(*parts, **fields)
    what = ", ".join(f"{part.socket} '{part.name()}'" for part in parts) or "the examples"
    sections = (_reads_back(tried), _held_out(tried), _adds_up(tried), _trains(tried))
    found = list(each(*sections))
    # In a run that is broken already the same flaws would come again.
    fail_with(f"a run with {what}", found or plan_findings(tried))


def _reads_back(tried: Recipe) -> Findings:
    registry = Registry()
    everyone = [getattr(tried, name) for name in type(tried).model_fields]
    everyone += [*tried.losses, *tried.warmup.losses, *tried.metrics]
    for critic in tried.critics.values():
        everyone += [critic.backbone, critic.pool, critic.refresh]
    kinds = {type(part) for part in everyone if isinstance(part, ComponentConfig)}
    for kind in kinds:
        registry.add(kind, Origin("testing"))
    text = yaml12.dump(tried.model_dump())
    value = yaml12.parse(text).value
    if Recipe.model_validate(value, context={"registry": registry}) != tried:
        yield "its recipe is another one after it was written as YAML and read again"


def _held_out(tried: Recipe) -> Findings:
    """Metrics ask for pictures of prompts that training never sees."""
    source = build_part(tried.prompts)
    seen = {source[i] for i in range(min(len(source), MOST_PROMPTS))}
    for config in tried.metrics:
        asked = build_part(config).prompts(min(config.num_images, 64), config.seed)
        if known := [prompt for prompt in asked if prompt in seen]:
            yield (
                f"metrics '{config.name()}': prompts() gave {len(known)} of {len(asked)} that are "
                f"training's own, such as {known[0]!r}"
            )


def _adds_up(tried: Recipe) -> Findings:
    """Two micro-batches give the losses and gradients of one batch of their pictures."""
    if tried.optim.updates == "alternating":
        return  # it has one micro-batch always
    measured: list[dict[str, float | None]] = []
    for batch, accumulate in ((4, 1), (2, 2)):
        split = {"batch": batch, "accumulate": accumulate}
        trainer = _trainer(tried.model_copy(update={"run": tried.run.model_copy(update=split)}))
        metrics = trainer.step(trainer.schedule.first_joint_iteration())
        measured.append(
            {
                "critic's loss": metrics.critic,
                "student's loss": metrics.student,
                "critic's gradient": metrics.norm("critic"),
                "student's gradient": metrics.norm("student"),
            }
        )
    for (name, one), other in zip(measured[0].items(), measured[1].values(), strict=True):
        if not math.isclose(one or 0, other or 0, rel_tol=1e-3, abs_tol=1e-5):
            yield (
                f"micro-batches do not add up to one larger batch: the {name} is {one or 0:.5g} of "
                f"4 pictures and {other or 0:.5g} of 2 + 2. Losses are means over the batch, draw "
                "from `batch.noise` and `batch.timesteps`, and no picture's logits depend on the "
                "other pictures"
            )
            return


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
    return [t.detach().clone() for t in (*still, *(b for m in modules for b in m.buffers()))]


def _copied(state: TrainState) -> StateTensors:
    with torch.no_grad():
        tensors = state_tensors(state, DivergenceMonitor())
        return {part: {n: t.clone() for n, t in ts.items()} for part, ts in tensors.items()}
