"""From a recipe to the parts it names, and from the parts to the state that trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from distillkit.configs import ComponentConfig, LossConfig, PoolConfig
from distillkit.contracts import (
    Backbone,
    Pool,
    PromptSource,
    Refresh,
    StudentNetwork,
    Teacher,
)
from distillkit.errors import Notice, UserError
from distillkit.randomness import key_to_seed
from distillkit.recipe.schema import OptimConfig, Recipe
from distillkit.registry.entry_points import installed
from distillkit.samples.buffer import SampleBuffer
from distillkit.samples.order import BatchSlices, Repeats, SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.samples.pictures import PictureLatents
from distillkit.training.checks import check_warmup
from distillkit.training.guard import Guard
from distillkit.training.guard.calls import check_built, guarded
from distillkit.training.models.compiled import compile_networks
from distillkit.training.models.critic import Critic
from distillkit.training.models.distributed import parallelize
from distillkit.training.models.optimizers import make_optimizer
from distillkit.training.models.student import EMA, Student
from distillkit.training.schedule import TrainSchedule, WeightedLoss
from distillkit.training.train_state import TrainState


@dataclass
class CriticParts:
    """What the config of one critic built."""

    name: str
    backbone: Backbone
    pool: Pool
    refresh: Refresh | None
    guards: dict[str, Guard]
    steps: tuple[int, ...] = ()


@dataclass
class Parts:
    """What a recipe's configs built."""

    teacher: Teacher
    network: StudentNetwork
    prompts: PromptSource = ()
    critics: list[CriticParts] = field(default_factory=list)
    losses: list[WeightedLoss] = field(default_factory=list)
    warmup_losses: list[WeightedLoss] = field(default_factory=list)

    @property
    def loss_modules(self) -> list[nn.Module]:
        """Networks of the losses' own."""
        return [m for weighted in self.losses for m in weighted.loss.modules()]

    @property
    def aux_networks(self) -> list[tuple[nn.Module, Guard]]:
        """What trains with the heads, of losses and of backbones, each with whom to name."""
        losses = [(m, each.guard) for each in self.losses for m in each.loss.modules()]
        backbones = [
            (m, each.guards["backbone"])
            for each in self.critics
            for m in each.backbone.modules()
            if _trains(m)
        ]
        return losses + backbones


def build_parts(recipe: Recipe, *, outline: bool = False) -> Parts:
    """Build every part. What the user can mend is raised as `UserError`.

    `outline`: in true size but without weights, for `distillkit plan`; prompts are not read.
    """
    parts = build_models(recipe, outline=outline)
    parts.prompts = ["a prompt"] if outline else build_part(recipe.prompts)
    if not len(parts.prompts):
        raise UserError(f"prompts: '{recipe.prompts.name()}' gave no prompt at all")
    parts.critics = _build_critics(recipe, parts.teacher, outline)
    build = partial(_build_loss, parts=parts, outline=outline)
    parts.losses = [build(config, names=recipe.losses) for config in recipe.losses]
    parts.warmup_losses = [build(c, names=recipe.warmup.losses) for c in recipe.warmup.losses]
    check_warmup(parts.warmup_losses)
    if not outline and any(loss.uses_critics is not False for loss in recipe.losses):
        _note_optimizers(recipe.optim, parts)
    return parts


def _note_optimizers(optim: OptimConfig, parts: Parts) -> None:
    """Tell of optimizers without a network. Only built losses show theirs; where configs tell that
    there are none, `preflight` has said it."""
    aux = parts.aux_networks
    if optim.aux is not None and not aux:
        said = "since no loss has networks of its own and no backbone trains"
        warnings.warn(f"optim.aux: has no effect, {said}", Notice, stacklevel=2)
    if optim.critic is not None and not parts.critics and (optim.aux is not None or not aux):
        beside = " and beside `aux`" if aux else ""
        said = f"optim.critic: has no effect without critics{beside}"
        warnings.warn(said, Notice, stacklevel=2)


def build_models(recipe: Recipe, *, outline: bool = False) -> Parts:
    """The teacher, frozen, and the student's network alone: all that sampling and export need."""
    teacher = build_part(recipe.teacher, outline=outline)
    freeze(teacher.modules())
    return Parts(teacher, build_part(recipe.student, teacher, outline=outline))


def _build_critics(recipe: Recipe, teacher: Teacher, outline: bool) -> list[CriticParts]:
    found = []
    for name, config in recipe.all_critics().items():
        backbone = build_part(config.backbone, teacher, outline=outline)
        for module in backbone.modules():
            module.eval()
        seed = key_to_seed(recipe.run.seed, "heads", *([name] if name else []))
        pool = build_part(
            config.pool, *pool_arguments(config.pool, backbone, seed), outline=outline
        )
        if outline:
            pool.heads.to("meta")
        refresh = build_part(config.refresh) if config.refresh is not None else None
        chosen = (config.backbone, config.pool, config.refresh)
        guards = {part.socket: Guard(part_label(part)) for part in chosen if part is not None}
        found.append(CriticParts(name, backbone, pool, refresh, guards, config.steps))
    return found


def pool_arguments(config: PoolConfig, backbone: Backbone, seed: int) -> tuple[Any, ...]:
    """What a pool is built with. Raises `UserError` where its heads see a prompt that no backbone
    tells them."""
    if not config.sees_prompt:
        return backbone.channels, seed
    pooled = getattr(backbone, "pooled_channels", None)
    if pooled is None:
        raise UserError(
            f"{part_label(config)} has heads that see the pooled prompt, and "
            f"{type(backbone).__name__} has no `pooled_channels`: take another backbone"
        )
    return backbone.channels, seed, pooled


def _build_loss(
    config: LossConfig, *, names: Sequence[LossConfig], parts: Parts, outline: bool
) -> WeightedLoss:
    """`names`: the losses beside it, of which no two may have one name in the log."""
    loss = build_part(config, parts.teacher, parts.network, outline=outline)
    same = [other for other in names if other.name() == config.name()]
    place = next(n for n, other in enumerate(same) if other is config)
    name = config.name() if len(same) == 1 else f"{config.name()} {place + 1}"
    guard = Guard(part_label(config))
    return WeightedLoss(name, loss, config.weight, config.weight, config.ramp, config.steps, guard)


def build_part(config: ComponentConfig, *args: Any, outline: bool = False) -> Any:
    """What the config builds. Exceptions, here and in the part's calls, name part and package.

    `outline`: without weights, for `distillkit plan`.
    """
    guard, call = Guard(part_label(config)), "outline()" if outline else "build()"
    with guard(call):
        part = (config.outline if outline else config.build)(*args)  # type: ignore[attr-defined]
    guard.check(call, lambda: check_built(config.socket, part))
    return guarded(part, config.socket, guard)


def part_label(config: ComponentConfig) -> str:
    """`pool 'x' of plugin 'y' (package version)`: for sentences about the part."""
    entries = installed().registry.entries()
    origin = next((e.origin for e in entries if e.config is type(config)), None)
    return f"{config.socket} '{config.name()}' of {origin or type(config).__module__}"


def freeze(modules: Sequence[nn.Module]) -> None:
    """No gradients, no dropout, no running statistics."""
    for module in modules:
        module.requires_grad_(False).eval()


def make_schedule(recipe: Recipe, parts: Parts) -> TrainSchedule:
    """The run's phases. Raises `UserError` where the student would train in no joint iteration."""
    refinement, every = build_part(recipe.refinement), recipe.optim.critic_updates
    if every > refinement.iterations:
        raise UserError(
            f"optim.critic_updates: with {every} updates of the critics for each of the student, "
            f"and a refinement of {refinement.iterations} iterations, the student would never "
            "train; lower it, or lengthen the refinement"
        )
    return TrainSchedule(recipe, refinement, parts.losses, parts.warmup_losses)


def make_samples(recipe: Recipe, parts: Parts, slices: BatchSlices, device: Any) -> TeacherSamples:
    """The teacher's samples in the order in which the run sees them."""
    samples = recipe.samples
    repeats = Repeats(samples.uses, samples.buffer, slices.total) if samples.uses > 1 else None
    order = SampleOrder(parts.prompts, samples.seed, samples.count, recipe.run.seed, repeats)
    buffer = SampleBuffer(order, slices.batch) if repeats is not None else None
    return TeacherSamples(parts.teacher, order, device, buffer=buffer)


def make_train_state(recipe: Recipe, parts: Parts, accelerator: Any) -> TrainState:
    """Parts on their device, wrapped for several processes, with their optimizers."""
    device, run = accelerator.device, recipe.run
    parts.teacher.to(device)
    network = parts.network
    network.module.to(device)
    bare = network.module
    critics = [_make_critic(each, parts, recipe, device) for each in parts.critics]
    backbones = [m for each in parts.critics for m in each.backbone.modules()]
    sampling = [] if recipe.samples.cache is not None else [parts.teacher.denoiser.module]
    compile_networks([bare, *backbones, *sampling], run, device)
    network.module = parallelize(bare, accelerator, run.parallel)
    heads = [p for critic in critics for p in critic.pool.heads.parameters()]
    aux_networks = parts.aux_networks
    aux = [p for m, _ in aux_networks for p in m.to(device).parameters() if p.requires_grad]
    critic_optim = recipe.optim.critic or recipe.optim.student
    aux_optim = recipe.optim.aux or critic_optim
    critic_groups = ((heads, critic_optim), (aux, aux_optim))
    trainable = [p for p in network.module.parameters() if p.requires_grad]
    if not trainable:
        label = part_label(recipe.student)
        raise UserError(f"{label} has no parameter that trains: `module` shows the optimizer none")
    slices = BatchSlices(
        run.batch, run.accumulate, accelerator.process_index, accelerator.num_processes
    )
    return TrainState(
        seed=run.seed,
        slices=slices,
        samples=make_samples(recipe, parts, slices, device),
        student=Student.of(network, parts.teacher.schedule, recipe.student),
        ema=_make_ema(bare, recipe),
        student_optimizer=make_optimizer((trainable, recipe.optim.student)),
        critics=critics,
        critic_optimizer=make_optimizer(*critic_groups) if heads or aux else None,
        critic_optim=critic_optim,
        aux_optim=aux_optim,
        accelerator=accelerator,
        aux_networks=[module for module, _ in aux_networks],
        aux_guards=[guard for _, guard in aux_networks],
        pictures=make_pictures(recipe, parts.teacher, parts.prompts, device),
        student_guard=Guard(part_label(recipe.student)),
        offload_heads=run.offload_heads,
    )


def make_pictures(
    recipe: Recipe, teacher: Teacher, prompts: PromptSource, device: Any
) -> PictureLatents | None:
    """The prompts' own pictures, where the recipe asks for them. Raises `UserError` without any."""
    if recipe.samples.real != "pictures":
        return None
    source: Any = prompts
    if not hasattr(source, "images"):
        raise UserError(
            f"samples.real: prompts '{recipe.prompts.name()}' have no pictures; `image-folder` has"
        )
    return PictureLatents(teacher, source, device)


def _make_ema(module: nn.Module, recipe: Recipe) -> EMA | None:
    decay = recipe.student.ema
    return EMA(module, decay, "cpu" if recipe.run.offload_ema else None) if decay else None


def _make_critic(each: CriticParts, parts: Parts, recipe: Recipe, device: Any) -> Critic:
    for module in each.backbone.modules():
        module.to(device)
    if not recipe.run.offload_heads:
        each.pool.heads.to(device)
    return Critic(
        backbone=each.backbone,
        pool=each.pool,
        refresh=each.refresh,
        schedule=parts.teacher.schedule,
        seed=recipe.run.seed,
        name=each.name,
        decode=parts.teacher.decode,
        guards=each.guards,
        steps=each.steps,
        mixed=recipe.run.precision != "no",
    )


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
