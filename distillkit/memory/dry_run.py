"""One micro-batch of a recipe without weights and without a device, counted.

The parts come from `outline` and are on torch's meta device; batch, losses and gradients go through
the same functions as in a run (`make_batch`, `critic_gradients`, `student_gradients`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.memory.fakes import META, CountOnce, FakeAccelerator, FakeCache, FakePictures
from distillkit.memory.labels import CRITICS, SAMPLING, label_calls
from distillkit.memory.simulated_cuda import SimulatedCUDA
from distillkit.memory.tracker import MemoryTracker
from distillkit.recipe.schema import Recipe
from distillkit.training.build import (
    Parts,
    build_parts,
    make_schedule,
    make_train_state,
)
from distillkit.training.guard import PartError
from distillkit.training.metrics import StepMetrics
from distillkit.training.schedule import IterationSpec, TrainSchedule
from distillkit.training.step import critic_gradients, make_batch, student_gradients
from distillkit.training.train_state import Panels, TrainState

NO_VALUES = (
    "Plans run parts on the meta device, where tensors have no values: no `.item()`, `.tolist()`, "
    "`float()` or `if tensor` in what runs on the device"
)
"""The rule that a part breaks whose values can't be read here."""
ONE_DEVICE = (
    "Plans run parts on the meta device, and a run on a GPU would stop here too: tensors are made "
    "on the device of what the part was given (`device=x.device`), or moved to it"
)
"""The rule that a part breaks which makes tensors on another device."""


@dataclass
class DryRun:
    """What one micro-batch took."""

    parts: Parts
    state: TrainState
    schedule: TrainSchedule
    panels: Panels
    """The drawn heads, critic by critic."""
    offload_ema: bool = False
    """Whether the student's running average is in main memory."""
    peak: dict[str, int] = field(default_factory=dict)
    """Bytes by kind at the moment when most were alive."""
    student_graph: int = 0
    """Bytes that the student's forward pass keeps for its backward pass."""
    decoding: int = 0
    """Bytes beside the weights while previews are decoded."""
    flops: dict[str, int] = field(default_factory=dict)
    """FLOPs by part of the iteration's work, of one micro-batch."""


def dry_run(recipe: Recipe) -> DryRun:
    """One micro-batch of the recipe's first joint iteration, and the previews' decoding.

    Raises `PartError`, which names the part, where one fails or reads a tensor's values.
    """
    try:
        return _dry_run(recipe)
    except PartError as error:
        if "meta" not in str(error.__cause__):
            raise
        cause = str(error.__cause__)
        rule = ONE_DEVICE if "device cpu" in cause or "same device" in cause else NO_VALUES
        raise PartError(f"{str(error).rstrip('.!')}. {rule}") from error.__cause__


def _dry_run(recipe: Recipe) -> DryRun:
    parts = build_parts(recipe, outline=True)
    if recipe.samples.real == "pictures":
        parts.prompts = FakePictures(parts.prompts)
    tracker = MemoryTracker()
    device = SimulatedCUDA(on_copy=lambda copy: tracker.own("16-bit copies", [copy]))
    accelerator = FakeAccelerator(device, recipe.run.precision)
    state = make_train_state(_plain(recipe), parts, accelerator)
    state.grad = device.grad
    schedule = make_schedule(recipe, parts)
    i = schedule.first_joint_iteration()
    spec = schedule.spec(i)
    panels = state.draw_panels(i, spec.steps) if spec.trains_critic else []
    dry = DryRun(parts, state, schedule, panels, recipe.run.offload_ema)
    _allocate(recipe, dry, tracker)
    teacher = parts.teacher
    state.samples = replace(state.samples, buffer=None)  # in main memory: an iteration that samples
    if recipe.samples.cache is not None:
        embeds = recipe.samples.cache_prompt_embeds
        cond = teacher.encode([""] * recipe.run.batch).to(META) if embeds else None
        cache: Any = FakeCache(teacher.latent_shape, cond)
        state.samples = replace(state.samples, cache=cache)
    if recipe.samples.real_cache is not None and state.pictures is not None:
        pictures: Any = FakeCache(teacher.latent_shape, None)
        state.pictures = replace(state.pictures, cache=pictures)
    with tracker, device:
        _micro_batch(dry, tracker, spec)
        dry.peak, dry.flops = dict(tracker.peak), dict(tracker.flops)
        before = tracker.total
        tracker.restart()
        with torch.no_grad():
            teacher.decode(torch.empty(recipe.run.previews, *teacher.latent_shape, device=META))
        dry.decoding = sum(tracker.peak.values()) - before
    return dry


def _plain(recipe: Recipe) -> Recipe:
    """The recipe with moments of 32 bits, which need no library, and uncompiled; nothing steps in a
    dry run."""
    fields = {n: getattr(recipe.optim, n) for n in ("student", "warmup", "critic", "aux")}
    plain = {n: o.model_copy(update={"bits": 32}) for n, o in fields.items() if o is not None}
    optim, run = recipe.optim.model_copy(update=plain), {"compile": None, "offload_ema": False}
    return recipe.model_copy(update={"optim": optim, "run": recipe.run.model_copy(update=run)})


def _allocate(recipe: Recipe, dry: DryRun, tracker: MemoryTracker) -> None:
    """What is on the device before the micro-batch; after the first, gradients are too."""
    state = dry.state
    tracker.ignore(offloaded(dry, False))
    for kind, tensors in resident(dry, False).items():
        tracker.own(kind, tensors)
    for p in trainable(dry):
        if state.slices.accumulate > 1:
            p.grad = torch.empty_like(p)
            tracker.own("gradients", [p.grad])
        p.register_post_accumulate_grad_hook(
            lambda p: tracker.own("gradients", [p.grad] if p.grad is not None else [])
        )


def trainable(dry: DryRun) -> list[nn.Parameter]:
    """Parameters that get a gradient in an iteration: of the student, of drawn heads, of losses."""
    drawn = [p for critic, panel in dry.panels for p in critic.parameters(panel.head_ids)]
    modules = [dry.state.student.network.module, *dry.state.aux_networks]
    return [p for m in modules for p in m.parameters() if p.requires_grad] + drawn


def resident(dry: DryRun, offload_heads: bool) -> dict[str, list[Tensor]]:
    """The networks' tensors that are on the device throughout, by kind; each is listed once."""
    parts, state = dry.parts, dry.state
    kinds: dict[str, list[nn.Module]] = {
        "student": [parts.network.module],
        "heads": [head for each in parts.critics for head in each.pool.heads],
        "losses' networks": list(parts.loss_modules),
        "teacher": list(parts.teacher.modules()),
        "backbone": [m for each in parts.critics for m in each.backbone.modules()],
    }
    seen = {id(t) for t in offloaded(dry, offload_heads)}
    found: dict[str, list[Tensor]] = {}
    for kind, modules in kinds.items():
        found[kind] = []
        for tensor in (t for m in modules for t in _tensors(m)):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[kind].append(tensor)
    if state.ema is not None and not dry.offload_ema:
        found["EMA"] = list(state.ema.weights.values())
    return found


def offloaded(dry: DryRun, offload_heads: bool) -> list[Tensor]:
    """Tensors of networks, heads and running average that are offloaded to main memory."""
    modules = list(getattr(dry.parts.teacher, "offloaded", list)())
    if offload_heads:
        drawn = {id(critic.pool.heads[h]) for critic, panel in dry.panels for h in panel.head_ids}
        heads = (head for each in dry.parts.critics for head in each.pool.heads)
        modules += [head for head in heads if id(head) not in drawn]
    average = dry.state.ema.weights if dry.state.ema is not None and dry.offload_ema else {}
    return [t for m in modules for t in _tensors(m)] + list(average.values())


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _micro_batch(dry: DryRun, tracker: MemoryTracker, spec: IterationSpec) -> None:
    state, metrics = dry.state, StepMetrics(spec)
    denoiser = dry.parts.teacher.denoiser
    dry.parts.teacher.denoiser = CountOnce(denoiser, tracker, SAMPLING)
    label_calls(dry.parts, state, tracker)
    with state.micro_batch(last=True):
        before = tracker.total
        batch = make_batch(state, spec, 0, 0, dry.panels)
        # Made here, so that they count under their own label.
        batch.real_BCHW  # noqa: B018
        batch.rollout_BCHW  # noqa: B018
        dry.student_graph = tracker.total - before
        with tracker.label(CRITICS):
            if spec.trains_critic:
                critic_gradients(state, spec, batch, metrics)
            if spec.trains_student:
                batch.heads_updated = spec.alternates
                student_gradients(state, spec, batch, metrics)
