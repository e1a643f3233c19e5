"""From a recipe to the parts it names, and from the parts to the state that trains."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from distillkit.configs import ComponentConfig
from distillkit.contracts import Backbone, Pool, PromptSource, Refresh, StudentNetwork, Teacher
from distillkit.errors import UserError
from distillkit.randomness import key_to_seed
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.samples.order import BatchSlices, SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.critics import Critics
from distillkit.training.distributed import parallelize
from distillkit.training.optimizers import make_optimizer
from distillkit.training.schedule import TrainSchedule, WeightedLosses
from distillkit.training.student import EMA, Student
from distillkit.training.train_state import TrainState


@dataclass
class Parts:
    """What a recipe's configs built."""

    teacher: Teacher
    network: StudentNetwork
    prompts: PromptSource = ()
    backbone: Backbone | None = None
    pool: Pool | None = None
    refresh: Refresh | None = None
    losses: WeightedLosses = field(default_factory=list)
    warmup_losses: WeightedLosses = field(default_factory=list)

    @property
    def loss_modules(self) -> list[nn.Module]:
        """Networks of the losses' own."""
        return [m for _, loss in self.losses for m in loss.modules()]


def build_parts(recipe: Recipe, *, outline: bool = False) -> Parts:
    """Build every part. What the user can mend is raised as `UserError`.

    `outline`: in true size but without weights, for `distillkit plan`; prompts are not read.
    """
    build = partial(build_part, outline=outline)
    parts = build_models(recipe, outline=outline)
    parts.prompts = ["a prompt"] if outline else build_part(recipe.prompts)
    if not len(parts.prompts):
        raise UserError(f"prompts: '{recipe.prompts.name()}' gave no prompt at all")
    if recipe.backbone is not None and recipe.pool is not None:
        parts.backbone = build(recipe.backbone, parts.teacher)
        for module in parts.backbone.modules():
            module.eval()
        seed = key_to_seed(recipe.run.seed, "heads")
        parts.pool = build(recipe.pool, parts.backbone.channels, seed)
        if outline:
            parts.pool.heads.to("meta")
    if recipe.refresh is not None:
        parts.refresh = build_part(recipe.refresh)
    parts.losses, parts.warmup_losses = (
        [(config.weight, build(config, parts.teacher, parts.network)) for config in configs]
        for configs in (recipe.losses, recipe.warmup.losses)
    )
    return parts


def build_models(recipe: Recipe, *, outline: bool = False) -> Parts:
    """The teacher, frozen, and the student's network alone: all that sampling and export need."""
    teacher = build_part(recipe.teacher, outline=outline)
    freeze(teacher.modules())
    return Parts(teacher, build_part(recipe.student, teacher, outline=outline))


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


def make_schedule(recipe: Recipe, parts: Parts) -> TrainSchedule:
    """The run's phases."""
    return TrainSchedule(recipe, build_part(recipe.refinement), parts.losses, parts.warmup_losses)


def make_order(recipe: Recipe, parts: Parts) -> SampleOrder:
    """The run's order of samples."""
    samples = recipe.samples
    return SampleOrder(parts.prompts, samples.seed, samples.count, recipe.run.seed)


def make_train_state(recipe: Recipe, parts: Parts, accelerator: Any) -> TrainState:
    """Parts on their device, wrapped for several processes, with their optimizers."""
    device, run = accelerator.device, recipe.run
    parts.teacher.to(device)
    network = parts.network
    network.module.to(device)
    bare = network.module
    network.module = parallelize(bare, accelerator, run.parallel)
    critics, aux_networks = _make_critics(parts, device, run.offload_heads)
    heads = list(critics.pool.heads.parameters()) if critics else []
    aux = [p for m in aux_networks for p in m.to(device).parameters() if p.requires_grad]
    critic_optim = recipe.optim.critic or recipe.optim.student
    aux_optim = recipe.optim.aux or critic_optim
    critic_groups = ((heads, critic_optim), (aux, aux_optim))
    trainable = [p for p in network.module.parameters() if p.requires_grad]
    return TrainState(
        seed=run.seed,
        slices=BatchSlices(
            run.batch, run.accumulate, accelerator.process_index, accelerator.num_processes
        ),
        samples=TeacherSamples(parts.teacher, make_order(recipe, parts), device),
        student=Student(network, parts.teacher.schedule, recipe.student.timestep_shift),
        ema=EMA(bare, recipe.student.ema) if recipe.student.ema else None,
        student_optimizer=make_optimizer((trainable, recipe.optim.student)),
        critics=critics,
        critic_optimizer=make_optimizer(*critic_groups) if heads or aux else None,
        critic_optim=critic_optim,
        aux_optim=aux_optim,
        refresh=parts.refresh if critics is not None else None,
        accelerator=accelerator,
        aux_networks=aux_networks,
        reset_iteration_N=torch.zeros(len(critics.pool.heads) if critics else 0, dtype=torch.int64),
        offload_heads=run.offload_heads,
    )


def _make_critics(
    parts: Parts, device: Any, offload_heads: bool
) -> tuple[Critics | None, list[nn.Module]]:
    """The critics on the device, and the networks that train beside their heads."""
    aux_networks = list(parts.loss_modules)
    if parts.backbone is None or parts.pool is None:
        return None, aux_networks
    aux_networks += [m for m in parts.backbone.modules() if _trains(m)]
    for module in parts.backbone.modules():
        module.to(device)
    if not offload_heads:
        parts.pool.heads.to(device)
    return Critics(parts.backbone, parts.pool, parts.teacher.schedule), aux_networks


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
