"""Contract of a loss: where its gradients go, and that it is a mean over the batch.

Legend: B batch, C latent channels, H, W latent cells, K patch logits of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.configs import ComponentConfig
from distillkit.contracts import Teacher
from distillkit.errors import UserError
from distillkit.testing.batches import COUNT, Batches
from distillkit.testing.building import built
from distillkit.testing.findings import (
    Findings,
    Raised,
    Snapshot,
    calling,
    each,
    modules_of,
    moved_by_gradient,
    perturb,
    same,
    shape_of,
    strangers,
    trained,
    unlisted,
    weights_of,
)
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.values import Condition

PLAYERS = ("critic", "student")


def loss_findings(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """Where its gradients go: the critics' to heads and own networks, the student's to it alone."""
    teachers, batches = Snapshot(taught_by.modules()), Batches(taught_by)
    students = Snapshot([batches.network.module])
    part, twin = (built(config, taught_by, batches.network, process=p) for p in (1, 2))
    yield from _networks(part, twin, batches)
    terms: list[str] = []
    yield from each(
        *(_player(part, twin, player, batches, terms) for player in PLAYERS),
        *(_mean(part, player, batches) for player in PLAYERS),
        *(_other_batches(part, player, batches) for player in PLAYERS),
        *(_stateless(part, twin, player, batches) for player in PLAYERS),
        _after_step(part, batches.drawn_heads),
        (f"it changed the teacher: its {change}" for change in teachers.changes()),
        (f"it changed the student: its {change}" for change in students.changes()),
    )
    if not terms:
        yield "it returns None for both players"


def _networks(part: Any, twin: Any, batches: Batches) -> Findings:
    """Networks of its own: the same in every process, at every call, and nobody else's."""
    if not same(weights_of(modules_of(part)), weights_of(twin.modules())):
        yield "modules(): two processes start with different weights: seed them"
    first, second = modules_of(part), modules_of(part)
    if len(first) != len(second) or any(map(is_not, first, second)):
        yield "modules(): gives other networks at every call"
    yield from unlisted(
        part.part, [*part.modules(), *batches.teacher.modules(), batches.network.module]
    )
    others = {"teacher": batches.teacher.modules(), "student": [batches.network.module]}
    for whose, modules in others.items():
        theirs = {p.data_ptr() for m in modules for p in m.parameters()}
        if any(p.data_ptr() in theirs for p in trained(part.modules())):
            yield f"modules(): a parameter that trains is the {whose}'s too: copy it"


def _player(part: Any, twin: Any, player: str, batches: Batches, terms: list[str]) -> Findings:
    """One player's term: a finite scalar whose gradient reaches that player alone."""
    own, weights = trained(part.modules()), list(batches.network.module.parameters())
    drawn = [p for head in batches.drawn_heads for p in head.parameters()]
    heads = list(batches.critic.pool.heads.parameters())
    reached, spared = [*drawn, *own], weights
    if player == "student":
        reached, spared = weights, [*heads, *own]
    for p in (*reached, *spared):
        p.grad = None
    batch = batches.make()
    before = _values(batch)
    term = getattr(part, player)(batch)
    if term is None:
        return
    terms.append(player)
    if not _is_finite_scalar(term):
        yield f"{player}(): should give a finite scalar or None, not {_what(term)}"
        return
    if changed := [n for n, value in _values(batch).items() if not torch.equal(value, before[n])]:
        yield f"{player}(): wrote into `{changed[0]}` of the batch, which other losses see too"
        return
    if not torch.equal(term, getattr(part, player)(batches.make())):
        yield f"{player}(): differs between two calls: draw from `batch.noise` alone"
    elif not torch.equal(term, getattr(twin, player)(batches.make())):
        yield f"{player}(): differs between two processes with the same batch"
    theirs = [p for m in batches.teacher.modules() for p in m.parameters()]
    if strangers(term, [batch.fake_BCHW, *weights, *heads, *own, *theirs]):
        yield f"{player}(): depends on a parameter that is in none of modules(): nothing trains it"
    if term.requires_grad:
        with calling(f"{player}(): its backward pass"):
            term.backward()
    yield from _gradients(player, batch, reached, spared)
    if player == "student" and not moved_by_gradient(reached):
        _learn_later(part, batch, batches)
    if not moved_by_gradient(reached):
        yield f"{player}(): its gradient reaches nothing of the {player}'s"


def _gradients(
    player: str, batch: LazyTrainBatch, reached: Sequence[Tensor], spared: Sequence[Tensor]
) -> Findings:
    """After a backward pass of the player's term, which is passed on to the student."""
    direct, at_fake_BCHW = moved_by_gradient(reached), batch.fake_BCHW.grad
    if player == "student" and direct:
        yield (
            f"student(): {'its' if at_fake_BCHW is None else 'some of its'} gradient reaches the "
            "student past x_0-hat, where it is lost: compute from `batch.fake_BCHW` or "
            "`batch.student_logits()`"
        )
    if at_fake_BCHW is not None:
        batch.rollout_BCHW.backward(at_fake_BCHW)
    if any(p.grad is not None for p in spared):
        yield f"{player}(): its gradient reaches the other player: use `{player}_logits`"


def _learn_later(part: Any, batch: LazyTrainBatch, batches: Batches) -> None:
    """The student's gradient once the loss's own networks have learned, where it is exactly 0 at
    first: a fake score that begins as the teacher's has nothing to say before."""
    own = trained(part.modules())
    if batch.fake_BCHW.grad is None or not own:
        return
    later, start = batches.make(), [p.detach().clone() for p in own]
    perturb(own, "own networks")
    try:
        term = part.student(later)
        if isinstance(term, Tensor) and term.requires_grad:
            with calling("student(): its backward pass"):
                term.backward()
    finally:
        with torch.no_grad():
            for p, before in zip(own, start, strict=True):
                p.copy_(before)
    if later.fake_BCHW.grad is not None:
        later.rollout_BCHW.backward(later.fake_BCHW.grad)


def _tensors(cond: Condition | None) -> Iterable[tuple[str, Tensor]]:
    return cond.tensors.items() if cond is not None else ()


def _values(batch: LazyTrainBatch) -> dict[str, Tensor]:
    """A copy of everything that a loss is shown."""
    shown = {
        "x_T_BCHW": batch.x_T_BCHW,
        "real_BCHW": batch.real_BCHW,
        "fake_BCHW": batch.fake_BCHW,
        **{f"cond.tensors['{name}']": t for name, t in batch.cond.tensors.items()},
        **{f"null.tensors['{name}']": t for name, t in _tensors(batch.null)},
    }
    for n, (one, other) in enumerate(
        zip(batch.critic_logits(), batch.student_logits(), strict=True)
    ):
        shown |= {f"critic_logits()[{n}].t_B": one.t_B, f"student_logits()[{n}].t_B": other.t_B}
        shown |= {f"critic_logits()[{n}].real_BK": one.real_BK}
        shown |= {f"critic_logits()[{n}].fake_BK": one.fake_BK}
        shown |= {f"student_logits()[{n}].fake_BK": other.fake_BK}
    return {name: value.detach().clone() for name, value in shown.items()}


def _mean(part: Any, player: str, batches: Batches) -> Findings:
    """The same pictures twice give the same value, so that micro-batches add up to one batch."""
    once = getattr(part, player)(batches.make())
    twice = getattr(part, player)(batches.make([*range(COUNT), *range(COUNT)]))
    if not (_is_finite_scalar(once) and _is_finite_scalar(twice)):
        return
    one, two = float(once.detach()), float(twice.detach())
    if abs(two - one) <= 1e-3 * abs(one) + 1e-5:
        return
    if abs(two - 2 * one) <= 0.02 * abs(two):
        yield (
            f"{player}(): sums over the batch: twice the pictures give twice the loss; take the "
            "mean, so that micro-batches add up to one larger batch"
        )
    else:
        yield (
            f"{player}(): is no mean over the batch: {one:.4g} for {COUNT} pictures, and {two:.4g} "
            "for the same ones twice"
        )


def _other_batches(part: Any, player: str, batches: Batches) -> Findings:
    """Batches that a recipe can bring."""
    kinds = {
        "without logits (no pool, or the student's warm-up)": batches.make(panels=[]),
        "of two critics, of which one judges some of the pictures": batches.of_two_critics(),
        "of one picture": batches.make([0]),
        "in iteration 10,000 with a roll-out of 4 steps": replace(
            batches.make(), iteration=10_000, steps=4
        ),
    }
    for what, batch in kinds.items():
        try:
            with calling(f"{player}() of a batch {what}"):
                term = getattr(part.part, player)(batch)
        except Raised as raised:
            if isinstance(raised.__cause__, UserError):
                continue  # a recipe that it is not made for, told in a sentence
            raise
        if term is not None and not _is_finite_scalar(term):
            yield f"{player}(): gave {_what(term)} for a batch {what}, not a finite scalar or None"


def _stateless(part: Any, twin: Any, player: str, batches: Batches) -> Findings:
    """Of a part that has seen other batches meanwhile, and of one that has not."""
    ours, theirs = (getattr(each_part, player)(batches.make()) for each_part in (part, twin))
    if _is_finite_scalar(ours) and _is_finite_scalar(theirs) and not torch.equal(ours, theirs):
        yield (
            f"{player}(): depends on the batches of earlier calls, which no checkpoint knows: keep "
            "what should last in the parameters and buffers of modules()"
        )


def _after_step(part: Any, heads: Sequence[nn.Module]) -> Findings:
    own = [id(p) for head in heads for p in head.parameters()]
    part.after_critic_step(heads)
    after = [p for head in heads for p in head.parameters()]
    if [id(p) for p in after] != own:
        yield "after_critic_step(): replaced a parameter; write into the old one"
    if not all(bool(p.isfinite().all()) for p in after):
        yield "after_critic_step(): left a weight that is not finite"
    if not all(p.requires_grad for p in after):
        yield "after_critic_step(): left a weight that asks for no gradient"


def _is_finite_scalar(term: Any) -> bool:
    return isinstance(term, Tensor) and not term.ndim and bool(term.isfinite())


def _what(term: Any) -> str:
    return str(term.detach()) if isinstance(term, Tensor) and not term.ndim else str(shape_of(term))
