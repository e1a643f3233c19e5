"""One micro-batch of a recipe without weights and without a device, counted.

The parts come from `outline` and are on torch's meta device; batch, losses and gradients go through
the same functions as in a run (`step.make_batch`, `step.accumulate_gradients`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distillkit.memory.simulated_cuda import SimulatedCUDA
from distillkit.memory.tracker import MemoryTracker
from distillkit.recipe.schema import Recipe
from distillkit.training.build import Parts, build_parts, make_schedule, make_train_state
from distillkit.training.divergence import StepMetrics
from distillkit.training.schedule import IterationSpec, TrainSchedule
from distillkit.training.step import accumulate_gradients, make_batch
from distillkit.training.train_state import TrainState
from distillkit.values import Condition, Panel

META = torch.device("meta")


@dataclass
class DryRun:
    """What one micro-batch took."""

    parts: Parts
    state: TrainState
    schedule: TrainSchedule
    head_ids: list[int]
    """The drawn heads."""
    peak: dict[str, int] = field(default_factory=dict)
    """Bytes by kind at the moment when most were alive."""
    student_graph: int = 0
    """Bytes that the student's forward pass keeps for its backward pass."""
    decoding: int = 0
    """Bytes beside the weights while previews are decoded."""
    flops: dict[str, int] = field(default_factory=dict)
    """FLOPs by part of the iteration's work, of one micro-batch."""


@dataclass
class FakeAccelerator:
    """What a train state asks of an accelerator, for one process on the meta device."""

    cuda: SimulatedCUDA
    precision: str
    device: Any = META
    process_index: int = 0
    num_processes: int = 1

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module as it is: one process needs no wrapper."""
        return module

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision."""
        with self.cuda.autocast(self.precision):
            yield

    def backward(self, loss: Tensor) -> None:
        """Gradients."""
        self.cuda.backward(loss)


@dataclass
class FakeCache:
    """Stands in for a cache of samples that is filled."""

    shape: tuple[int, int, int]
    condition: Condition | None

    def x_0(self, ids: Sequence[int]) -> Tensor:
        """Samples of no values."""
        return torch.empty(len(ids), *self.shape, device=META)

    def conditions(self, ids: Sequence[int]) -> Condition | None:
        """Conditions, where the cache keeps them."""
        return self.condition


class CountOnce:
    """A denoiser whose calls after the first are not worked out: they cost what the first did."""

    def __init__(self, denoiser: Any, tracker: MemoryTracker, label: str) -> None:
        self.denoiser, self.tracker, self.label = denoiser, tracker, label
        self.module, self.prediction = denoiser.module, denoiser.prediction
        self._costs: dict[torch.Size, int] = {}

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The first of each shape goes through the network."""
        cost = self._costs.get(x_t_BCHW.shape)
        if cost is not None and not torch.is_grad_enabled():
            self.tracker.flops[self.label] += cost
            return torch.empty_like(x_t_BCHW)
        before = self.tracker.flops[self.label]
        with self.tracker.label(self.label):
            output: Tensor = self.denoiser(x_t_BCHW, t_B, cond)
        self._costs[x_t_BCHW.shape] = self.tracker.flops[self.label] - before
        return output


def dry_run(recipe: Recipe) -> DryRun:
    """One micro-batch of the recipe's first joint iteration, and the previews' decoding."""
    parts = build_parts(recipe, outline=True)
    tracker = MemoryTracker()
    device = SimulatedCUDA(on_copy=lambda copy: tracker.own("16-bit copies", [copy]))
    accelerator = FakeAccelerator(device, recipe.run.precision)
    state = make_train_state(_plain(recipe), parts, accelerator)
    schedule = make_schedule(recipe, parts)
    i = schedule.first_joint_iteration()
    spec = schedule.spec(i)
    panel = state.draw_panel(i) if spec.trains_critic else None
    dry = DryRun(parts, state, schedule, panel.head_ids if panel else [])
    _allocate(recipe, dry, tracker)
    teacher = parts.teacher
    if recipe.samples.cache is not None:
        embeds = recipe.samples.cache_prompt_embeds
        cond = teacher.null(recipe.run.batch).to(META) if embeds else None
        cache: Any = FakeCache(teacher.latent_shape, cond)
        state.samples = replace(state.samples, cache=cache)
    with tracker, device:
        _micro_batch(dry, tracker, spec, panel)
        dry.peak, dry.flops = dict(tracker.peak), dict(tracker.flops)
        before = tracker.total
        tracker.restart()
        with torch.no_grad():
            teacher.decode(torch.empty(recipe.run.previews, *teacher.latent_shape, device=META))
        dry.decoding = sum(tracker.peak.values()) - before
    return dry


def _plain(recipe: Recipe) -> Recipe:
    """The recipe with moments of 32 bits, which need no library; nothing steps in a dry run."""
    fields = {n: getattr(recipe.optim, n) for n in ("student", "warmup", "critic", "aux")}
    plain = {n: o.model_copy(update={"bits": 32}) for n, o in fields.items() if o is not None}
    return recipe.model_copy(update={"optim": recipe.optim.model_copy(update=plain)})


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
    state = dry.state
    drawn = state.head_parameters(dry.head_ids)
    modules = [state.student.network.module, *state.aux_networks]
    return [p for m in modules for p in m.parameters() if p.requires_grad] + drawn


def resident(dry: DryRun, offload_heads: bool) -> dict[str, list[Tensor]]:
    """The networks' tensors that are on the device throughout, by kind; each is listed once."""
    parts, state = dry.parts, dry.state
    heads = parts.pool.heads if parts.pool is not None else nn.ModuleList()
    kinds: dict[str, list[nn.Module]] = {
        "student": [parts.network.module],
        "heads": list(heads),
        "losses' networks": list(parts.loss_modules),
        "teacher": list(parts.teacher.modules()),
        "backbone": list(parts.backbone.modules()) if parts.backbone is not None else [],
    }
    seen = {id(t) for t in offloaded(dry, offload_heads)}
    found: dict[str, list[Tensor]] = {}
    for kind, modules in kinds.items():
        found[kind] = []
        for tensor in (t for m in modules for t in _tensors(m)):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[kind].append(tensor)
    if state.ema is not None:
        found["EMA"] = list(state.ema.weights.values())
    return found


def offloaded(dry: DryRun, offload_heads: bool) -> list[Tensor]:
    """Tensors of the networks and heads that are offloaded to main memory."""
    parts, drawn = dry.parts, set(dry.head_ids)
    modules = list(getattr(parts.teacher, "offloaded", list)())
    if offload_heads and parts.pool is not None:
        modules += [head for n, head in enumerate(parts.pool.heads) if n not in drawn]
    return [t for m in modules for t in _tensors(m)]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _micro_batch(
    dry: DryRun, tracker: MemoryTracker, spec: IterationSpec, panel: Panel | None
) -> None:
    state = dry.state
    _label_calls(dry, tracker)
    seen_by = panel.of(state.slices.rows(0)) if panel else None
    with state.micro_batch(last=True):
        before = tracker.total
        batch = make_batch(state, spec, state.slices.positions(0, 0), seen_by)
        dry.student_graph = tracker.total - before
        with tracker.label("critics"):
            accumulate_gradients(state, spec, batch, StepMetrics(spec))


def _label_calls(dry: DryRun, tracker: MemoryTracker) -> None:
    """Count what calls of the parts cost under a label of their own."""
    parts, state = dry.parts, dry.state
    parts.teacher.denoiser = CountOnce(parts.teacher.denoiser, tracker, "teacher: sampling")
    _label(tracker, parts.teacher, "encode", "text encoders")
    _label(tracker, state.student.network.module, "forward", "student: forward")
    if parts.backbone is not None:
        _label(tracker, parts.backbone, "features", "backbone: forward")
    backward = state.backward

    def labelled(loss: Tensor, player: Literal["critic", "student"]) -> Tensor:
        with tracker.label(f"{player}: backward"):
            return backward(loss, player)

    state.backward = labelled  # type: ignore[method-assign]


def _label(tracker: MemoryTracker, owner: Any, method: str, name: str) -> None:
    inner = getattr(owner, method)

    def labelled(*args: Any, **kwargs: Any) -> Any:
        with tracker.label(name):
            return inner(*args, **kwargs)

    setattr(owner, method, labelled)
