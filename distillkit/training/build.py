"""From a recipe to the parts it names, held to their contracts: frozen is frozen."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.configs import ComponentConfig
from distillkit.contracts import (
    Backbone,
    Pool,
    PromptSource,
    Refresh,
    StudentNetwork,
    Teacher,
)
from distillkit.errors import UserError
from distillkit.randomness import key_to_seed
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.samples.order import Deal, Stream
from distillkit.samples.pairs import Pairs
from distillkit.training.critics import Critics
from distillkit.training.distributed import spread
from distillkit.training.optimizers import make_optimizer
from distillkit.training.schedule import Terms, Timeline
from distillkit.training.student import Average, Student
from distillkit.training.train_state import Players


@dataclass
class Parts:
    """What a recipe's configs built."""

    teacher: Teacher
    network: StudentNetwork
    prompts: PromptSource
    backbone: Backbone | None = None
    pool: Pool | None = None
    refresh: Refresh | None = None
    losses: Terms = field(default_factory=list)
    warmup_losses: Terms = field(default_factory=list)

    @property
    def loss_modules(self) -> list[nn.Module]:
        """Networks of the losses' own."""
        return [m for _, loss in self.losses for m in loss.modules()]


def build_parts(recipe: Recipe) -> Parts:
    """Build every part. Sentences for the user come out of the parts as `UserError`."""
    teacher = build_part(recipe.teacher)
    freeze(teacher.modules())
    network = build_part(recipe.student, teacher)
    parts = Parts(teacher, network, build_part(recipe.prompts))
    if not len(parts.prompts):
        raise UserError(f"prompts: '{recipe.prompts.name()}' gave no prompt at all")
    if recipe.backbone is not None and recipe.pool is not None:
        parts.backbone = build_part(recipe.backbone, teacher)
        for module in parts.backbone.modules():
            module.eval()
        seed = key_to_seed(recipe.run.seed, "heads")
        parts.pool = build_part(recipe.pool, parts.backbone.channels, seed)
    if recipe.refresh is not None:
        parts.refresh = build_part(recipe.refresh)
    parts.losses, parts.warmup_losses = (
        [(config.weight, build_part(config, teacher, network)) for config in configs]
        for configs in (recipe.losses, recipe.warmup.losses)
    )
    return parts


def build_part(config: ComponentConfig, *args: Any, outline: bool = False) -> Any:
    """What the config builds. A plugin's exception becomes a sentence that names the plugin.

    `outline`: without weights, for `distillkit plan`.
    """
    try:
        return (config.outline if outline else config.build)(*args)  # type: ignore[attr-defined]
    except UserError:
        raise
    except Exception as error:
        entries = installed().registry.entries()
        origin = next((e.origin for e in entries if e.config is type(config)), None)
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{config.socket} '{config.name()}' of {origin or type(config).__module__} could not "
            f"be built: {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        ) from error


def freeze(modules: Sequence[nn.Module]) -> None:
    """No gradients, no dropout, no running statistics."""
    for module in modules:
        module.requires_grad_(False).eval()


def make_accelerator(recipe: Recipe, folder: Path) -> Any:
    """Device, precision, processes and trackers, by accelerate; sets torch's CPU threads."""
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers

    run = recipe.run
    there = sorted(map(str, get_available_trackers()))
    for tracker in run.trackers:
        if tracker not in there:
            # accelerate would leave it out without a word.
            raise UserError(
                f"run.trackers: {tracker!r} is not installed, or accelerate does not know it; "
                f"installed: {', '.join(there) or 'none'}"
            )
    if run.threads:
        torch.set_num_threads(run.threads)
    try:
        return Accelerator(
            mixed_precision=run.precision, log_with=run.trackers or None, project_dir=str(folder)
        )
    except ValueError as error:
        raise UserError(f"run.precision: {run.precision} can't be used here: {error}") from None


def make_timeline(recipe: Recipe, parts: Parts) -> Timeline:
    """The run's phases."""
    return Timeline(recipe, build_part(recipe.refinement), parts.losses, parts.warmup_losses)


def make_stream(recipe: Recipe, parts: Parts) -> Stream:
    """The run's order of samples."""
    samples = recipe.samples
    return Stream(parts.prompts, samples.seed, samples.count, recipe.run.seed)


def make_players(recipe: Recipe, parts: Parts, accelerator: Any) -> Players:
    """Parts on their device, wrapped for several processes, with their optimizers."""
    device, run = accelerator.device, recipe.run
    parts.teacher.to(device)
    network = parts.network
    network.module.to(device)
    bare = network.module
    network.module = spread(bare, accelerator, run.parallel)
    average = Average(bare, recipe.student.ema) if recipe.student.ema else None
    critics, others = None, list(parts.loss_modules)
    if parts.backbone is not None and parts.pool is not None:
        critics = Critics(parts.backbone, parts.pool, parts.teacher.schedule)
        others += [m for m in parts.backbone.modules() if _trains(m)]
        for module in parts.backbone.modules():
            module.to(device)
        if not run.heads_wait:
            parts.pool.heads.to(device)
    heads = list(critics.pool.heads.parameters()) if critics else []
    beside = [p for m in others for p in m.to(device).parameters() if p.requires_grad]
    critic_optim = recipe.optim.critic or recipe.optim.student
    others_optim = recipe.optim.networks or critic_optim
    taught = ((heads, critic_optim), (beside, others_optim))
    learns = [p for p in network.module.parameters() if p.requires_grad]
    return Players(
        heads_wait=run.heads_wait,
        seed=run.seed,
        deal=Deal(run.batch, run.accumulate, accelerator.process_index, accelerator.num_processes),
        pairs=Pairs(parts.teacher, make_stream(recipe, parts), device),
        student=Student(network, parts.teacher.schedule, recipe.student.timestep_shift),
        average=average,
        student_optimizer=make_optimizer((learns, recipe.optim.student)),
        critics=critics,
        critic_optimizer=make_optimizer(*taught) if heads or beside else None,
        critic_optim=critic_optim,
        others_optim=others_optim,
        refresh=parts.refresh if critics is not None else None,
        accelerator=accelerator,
        others=others,
        born_N=torch.zeros(len(critics.pool.heads) if critics else 0, dtype=torch.int64),
    )


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
