"""What a recipe takes before it starts: parameters, memory and FLOPs by part; which cards hold it.

Sizes are bytes. A card of 24 GB has 24 * 2^30 of them, so they are shown in GiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

import torch
from torch import Tensor, nn

from distillkit.memory.dry_run import DryRun, dry_run, offloaded, resident, trainable
from distillkit.memory.labels import SAMPLING
from distillkit.recipe.schema import Recipe
from distillkit.training.models.optimizers import moments_bytes
from distillkit.training.schedule import IterationSpec

GIB = 2**30
CARDS = (24, 40, 48, 80)
"""Memory of the cards that a plan speaks of, in GiB."""
CONTEXT, FRAGMENTED = 0.5 * GIB, 0.05
"""Left free on a card: what CUDA takes for itself, and the share that lies in gaps (our choice)."""


@dataclass(frozen=True)
class Part:
    """What one part has on the device, in bytes."""

    name: str
    parameters: int
    weights: int
    gradients: int = 0
    optimizer: int = 0
    """Moments, when each parameter of the part has been stepped."""


@dataclass(frozen=True)
class Plan:
    """What an iteration takes."""

    recipe: Recipe
    parts: tuple[Part, ...]
    offloaded: int
    """Bytes of networks and heads in main memory."""
    activations: Mapping[str, int]
    """Bytes at the peak beside weights, gradients and moments, by what they are for."""
    student_graph: int
    """Bytes that the student's forward pass keeps for its backward pass."""
    peak: int
    """Most bytes at one moment of a run."""
    flops: Mapping[str, float]
    """FLOPs of an iteration with a roll-out of `steps`, by part. Where samples are used several
    times, sampling is the mean of the iterations."""
    steps: int
    """Length of the roll-out that was counted: one step where a run has such iterations."""
    buffer: int
    """Bytes of the samples that come again, in the main memory of a process."""
    rollout: float
    """FLOPs that roll-outs of other lengths add to an iteration, averaged over the run."""
    dry: DryRun = field(repr=False)
    """What this was counted on."""

    def fits(self, card: float) -> bool:
        """Whether a card of that many GiB holds the run."""
        return self.peak <= usable(card)


def usable(card: float) -> float:
    """Bytes of a card (in GiB) that tensors can have."""
    return card * GIB * (1 - FRAGMENTED) - CONTEXT


def make_plan(recipe: Recipe, dry: DryRun | None = None) -> Plan:
    """Count everything; takes seconds, and neither weights nor a device.

    `dry`: of a recipe that differs in `optim`, `run.offload_heads`, `samples.uses` and
    `samples.buffer` at most.
    """
    dry, offload_heads = dry or dry_run(recipe), recipe.run.offload_heads
    parts = tuple(_parts(recipe, dry))
    moments = sum(part.optimizer for part in parts)
    still = sum(part.weights for part in parts)
    gradients = sum(part.gradients for part in parts)
    named = resident(dry, offload_heads)
    moving = {name: size for name, size in dry.peak.items() if name not in named}
    visiting = sum(_bytes(list(m.parameters())) for m in _offloaded_modules(dry))
    moments_of = (
        still + sum(moving.values()),  # the worst of forward and backward passes
        still + gradients,  # when the optimizers step
        still + gradients + visiting,  # while a network that waits is at work
        still + dry.decoding + visiting,  # previews
    )
    micro_batches, uses = recipe.run.accumulate, {SAMPLING: recipe.samples.uses}
    return Plan(
        recipe=recipe,
        parts=parts,
        offloaded=_bytes(offloaded(dry, offload_heads)),
        activations={n: b for n, b in moving.items() if n != "gradients" and b},
        student_graph=dry.student_graph,
        peak=max(moments_of) + moments,
        flops={n: f * micro_batches / uses.get(n, 1) for n, f in dry.flops.items() if f},
        buffer=_buffer(recipe, dry),
        steps=_counted(dry).steps,
        rollout=_rollout(dry) * micro_batches,
        dry=dry,
    )


def _parts(recipe: Recipe, dry: DryRun) -> Iterator[Part]:
    optim, learning = recipe.optim, {id(p) for p in trainable(dry)}
    critic = optim.critic or optim.student
    optims = {"student": optim.student, "heads": critic}
    for name, tensors in resident(dry, recipe.run.offload_heads).items():
        parameters = [t for t in tensors if isinstance(t, nn.Parameter)]
        learn = [p for p in parameters if p.requires_grad]
        owner = optims.get(name, optim.aux or critic)
        yield Part(
            name,
            sum(_numel(p) for p in parameters),
            _bytes(tensors),
            _bytes([p for p in learn if id(p) in learning]),
            moments_bytes(learn, owner) if learn else 0,
        )


def _numel(parameter: nn.Parameter) -> int:
    """Values of a parameter; one whose values are packed into fewer says how many they are."""
    return int(getattr(parameter, "unpacked_numel", parameter.numel()))


def _buffer(recipe: Recipe, dry: DryRun) -> int:
    samples, latent = recipe.samples, torch.empty(dry.parts.teacher.latent_shape, device="meta")
    if samples.uses == 1 or samples.cache is not None or SAMPLING not in dry.flops:
        return 0
    return samples.buffer * recipe.run.batch * recipe.run.accumulate * latent.nbytes


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


def _offloaded_modules(dry: DryRun) -> Sequence[nn.Module]:
    modules: Sequence[nn.Module] = getattr(dry.parts.teacher, "offloaded", list)()
    return modules


def _counted(dry: DryRun) -> IterationSpec:
    return dry.schedule.spec(dry.schedule.first_joint_iteration())


def _rollout(dry: DryRun) -> float:
    """FLOPs that a mean iteration of the run has beside the one that was counted: the student's,
    forwards by the length of its roll-out, backwards by as much of it as gradients reach."""
    schedule, reach = dry.schedule, dry.schedule.recipe.student.gradient_steps
    counted = _counted(dry).steps
    places = range(schedule.start, len(schedule), max(1, len(schedule) // 500))
    lengths = [schedule.spec(i).steps for i in places] or [counted]
    forward, backward = (dry.flops.get(f"student: {way}", 0) for way in ("forward", "backward"))
    there, back = mean(lengths), mean(min(n, reach) for n in lengths)
    return forward * (there - counted) / counted + backward * (back / min(counted, reach) - 1)
