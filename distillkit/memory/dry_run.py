"""One micro-batch of a recipe without weights and without a device: what it takes is counted.

The parts come from `outline` and lie on torch's meta device; the pictures, losses and gradients go
through the same functions as in a run (`step.show`, `step.total`, `players.micro_batch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.contracts import Condition
from distillkit.memory.simulated_cuda import Card
from distillkit.memory.tracker import Meter
from distillkit.randomness import generator
from distillkit.recipe.schema import Recipe
from distillkit.training.build import Parts, build_part, freeze, make_players, make_timeline
from distillkit.training.schedule import Timeline, Turn
from distillkit.training.step import show, total
from distillkit.training.train_state import Players

META = torch.device("meta")


@dataclass
class Rehearsed:
    """What one micro-batch took."""

    parts: Parts
    players: Players
    timeline: Timeline
    drawn: list[int]
    """The panel's heads."""
    peak: dict[str, int] = field(default_factory=dict)
    """Bytes by kind at the moment when most were alive."""
    student_graph: int = 0
    """Bytes that the student's forward pass keeps for its backward pass."""
    decoding: int = 0
    """Bytes beside the weights while previews are decoded."""
    flops: dict[str, int] = field(default_factory=dict)
    """FLOPs by part of the iteration's work, of one micro-batch."""


@dataclass
class StandIn:
    """What players ask of an accelerator, for one process on no device."""

    card: Card
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
        with self.card.autocast(self.precision):
            yield

    def backward(self, loss: Tensor) -> None:
        """Gradients."""
        self.card.backward(loss)


@dataclass
class FullCache:
    """Stands in for a cache of samples that is filled."""

    shape: tuple[int, int, int]
    condition: Condition | None

    def x_0(self, ids: Sequence[int]) -> Tensor:
        """Samples of no values."""
        return torch.empty(len(ids), *self.shape, device=META)

    def conditions(self, ids: Sequence[int]) -> Condition | None:
        """Conditions, where the cache keeps them."""
        return self.condition


class Repeats:
    """A denoiser whose calls after the first are not worked out: they cost what the first did."""

    def __init__(self, denoiser: Any, meter: Meter, label: str) -> None:
        self.denoiser, self.meter, self.label = denoiser, meter, label
        self.module, self.prediction = denoiser.module, denoiser.prediction
        self._costs: dict[torch.Size, int] = {}

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The first of each shape goes through the network."""
        cost = self._costs.get(x_t_BCHW.shape)
        if cost is not None and not torch.is_grad_enabled():
            self.meter.flops[self.label] += cost
            return torch.empty_like(x_t_BCHW)
        before = self.meter.flops[self.label]
        with self.meter.label(self.label):
            output: Tensor = self.denoiser(x_t_BCHW, t_B, cond)
        self._costs[x_t_BCHW.shape] = self.meter.flops[self.label] - before
        return output


def outline_parts(recipe: Recipe) -> Parts:
    """As `build_parts`, by `outline`; prompts are not read."""
    teacher = build_part(recipe.teacher, outline=True)
    freeze(teacher.modules())
    network = build_part(recipe.student, teacher, outline=True)
    parts = Parts(teacher, network, ["a prompt"])
    if recipe.backbone is not None and recipe.pool is not None:
        parts.backbone = build_part(recipe.backbone, teacher, outline=True)
        parts.pool = build_part(recipe.pool, parts.backbone.channels, 0, outline=True)
        parts.pool.heads.to(META)
    parts.losses, parts.warmup_losses = (
        [(c.weight, build_part(c, teacher, network, outline=True)) for c in configs]
        for configs in (recipe.losses, recipe.warmup.losses)
    )
    return parts


def rehearse(recipe: Recipe) -> Rehearsed:
    """One micro-batch of the recipe's first full iteration, and the previews' decoding."""
    parts = outline_parts(recipe)
    meter = Meter()
    card = Card(on_copy=lambda copy: meter.own("16-bit copies", [copy]))
    players = make_players(_plain(recipe), parts, StandIn(card, recipe.run.precision))
    timeline = make_timeline(recipe, parts)
    number, turn = first_full_turn(timeline)
    panel = None
    if turn.trains_critic and players.critics is not None:
        panel = players.critics.pool.draw(
            players.deal.total, generator(recipe.run.seed, "panel", number)
        )
    rehearsed = Rehearsed(parts, players, timeline, panel.heads if panel else [])
    _make_room(recipe, rehearsed, meter)
    teacher = parts.teacher
    if recipe.samples.cache is not None:
        kept = teacher.null(recipe.run.batch).to(META) if recipe.samples.conditions else None
        cache: Any = FullCache(teacher.latent_shape, kept)
        players.pairs = replace(players.pairs, cache=cache)
    with meter, card:
        _micro_batch(rehearsed, meter, turn, panel)
        rehearsed.peak, rehearsed.flops = dict(meter.peak), dict(meter.flops)
        before = meter.total
        meter.restart()
        with torch.no_grad():
            teacher.decode(torch.empty(recipe.run.previews, *teacher.latent_shape, device=META))
        rehearsed.decoding = sum(meter.peak.values()) - before
    return rehearsed


def _plain(recipe: Recipe) -> Recipe:
    """The recipe with moments of 32 bits, which need no library; nothing steps in a rehearsal."""
    fields = {n: getattr(recipe.optim, n) for n in ("student", "warmup", "critic", "networks")}
    plain = {n: o.model_copy(update={"bits": 32}) for n, o in fields.items() if o is not None}
    return recipe.model_copy(update={"optim": recipe.optim.model_copy(update=plain)})


def first_full_turn(timeline: Timeline) -> tuple[int, Turn]:
    """The first iteration in which both players train, on one step where there is such a one."""
    longer: tuple[int, Turn] | None = None
    for i in range(timeline.start, min(len(timeline), timeline.start + 1000)):
        turn = timeline.turn(i)
        if turn.trains_student and turn.steps == 1:
            return i, turn
        if turn.trains_student and longer is None:
            longer = i, turn
    return longer or (0, timeline.turn(0))


def _make_room(recipe: Recipe, rehearsed: Rehearsed, meter: Meter) -> None:
    """What is on the device before the micro-batch; after the first, gradients are too."""
    players = rehearsed.players
    meter.ignore(waiting(rehearsed, False))
    for kind, tensors in residents(rehearsed, False).items():
        meter.own(kind, tensors)
    for learner in learners(rehearsed):
        if players.deal.accumulate > 1:
            learner.grad = torch.empty_like(learner)
            meter.own("gradients", [learner.grad])
        learner.register_post_accumulate_grad_hook(
            lambda p: meter.own("gradients", [p.grad] if p.grad is not None else [])
        )


def learners(rehearsed: Rehearsed) -> list[nn.Parameter]:
    """Parameters that get a gradient in an iteration: of the student, of drawn heads, of losses."""
    players = rehearsed.players
    drawn = players.head_parameters(rehearsed.drawn)
    modules = [players.student.network.module, *players.others]
    return [p for m in modules for p in m.parameters() if p.requires_grad] + drawn


def residents(rehearsed: Rehearsed, heads_wait: bool) -> dict[str, list[Tensor]]:
    """The networks' tensors that are on the device throughout, by kind; each stands once."""
    parts, players = rehearsed.parts, rehearsed.players
    heads = parts.pool.heads if parts.pool is not None else nn.ModuleList()
    kinds: dict[str, list[nn.Module]] = {
        "student": [parts.network.module],
        "heads": list(heads),
        "losses' networks": list(parts.loss_modules),
        "teacher": list(parts.teacher.modules()),
        "backbone": list(parts.backbone.modules()) if parts.backbone is not None else [],
    }
    seen = {id(t) for t in waiting(rehearsed, heads_wait)}
    found: dict[str, list[Tensor]] = {}
    for kind, modules in kinds.items():
        found[kind] = []
        for tensor in (t for m in modules for t in _tensors(m)):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[kind].append(tensor)
    if players.average is not None:
        found["running average"] = list(players.average.weights.values())
    return found


def waiting(rehearsed: Rehearsed, heads_wait: bool) -> list[Tensor]:
    """Tensors of the networks and heads that wait in main memory."""
    parts, drawn = rehearsed.parts, set(rehearsed.drawn)
    modules = list(getattr(parts.teacher, "resting", list)())
    if heads_wait and parts.pool is not None:
        modules += [head for n, head in enumerate(parts.pool.heads) if n not in drawn]
    return [t for m in modules for t in _tensors(m)]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _micro_batch(rehearsed: Rehearsed, meter: Meter, turn: Turn, panel: Any) -> None:
    players = rehearsed.players
    _name_the_work(rehearsed, meter)
    judges = panel.of(players.deal.rows(0)) if panel else None
    with players.micro_batch(last=True):
        before = meter.total
        pictures = show(players, turn, players.deal.positions(0, 0), judges)
        rehearsed.student_graph = meter.total - before
        for player, trains in (("critic", turn.trains_critic), ("student", turn.trains_student)):
            if not trains:
                continue
            with meter.label("critics"):
                loss = total(turn.terms, player, pictures)
            if loss.requires_grad:
                with meter.label(f"{player}: backward"):
                    players.accelerator.backward(loss)


def _name_the_work(rehearsed: Rehearsed, meter: Meter) -> None:
    """Label what calls of the parts cost."""
    parts, players = rehearsed.parts, rehearsed.players
    parts.teacher.denoiser = Repeats(parts.teacher.denoiser, meter, "teacher: sampling")
    _label(meter, parts.teacher, "encode", "text encoders")
    _label(meter, players.student.network.module, "forward", "student: forward")
    if parts.backbone is not None:
        _label(meter, parts.backbone, "features", "backbone: forward")


def _label(meter: Meter, owner: Any, method: str, name: str) -> None:
    inner = getattr(owner, method)

    def labelled(*args: Any, **kwargs: Any) -> Any:
        with meter.label(name):
            return inner(*args, **kwargs)

    setattr(owner, method, labelled)
