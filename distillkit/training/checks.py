"""Whether a run can learn at all: refused in its first iterations, whatever parts are at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from distillkit.contracts import TrainBatch
from distillkit.errors import UserError
from distillkit.training.metrics import StepMetrics
from distillkit.training.schedule import (
    CRITIC_WARMUP,
    STUDENT_WARMUP,
    IterationSpec,
    Player,
    WeightedLoss,
)
from distillkit.values import HeadLogits

PHASES = (STUDENT_WARMUP, CRITIC_WARMUP, "")
"""The warm-ups, and the game that follows."""
KEYS = tuple((player, phase) for player in ("student", "critic") for phase in PHASES)
TURNS = 20
"""Updates of a player that may have no gradient at all: heads may start silent."""

Terms = Sequence[tuple[WeightedLoss, Tensor | None]]


class CannotLearnError(UserError):
    """The recipe's parts train nothing."""


@dataclass
class LearningCheck:
    """Looks at each player's first updates, in a warm-up and in the game that follows, which may
    have other losses; costs nothing once a gradient has been seen."""

    learns: set[tuple[str, str]] = field(default_factory=set)
    """The players that have had a gradient, each with its warm-up or with ""."""
    silent: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Updates of the others so far."""
    unspoken: dict[tuple[str, str], int] = field(default_factory=dict)
    """Steps of the first roll-out about which no loss told the student; 0 once one has a term."""
    no_critic_term: bool = False
    """Whether every loss returned None for the critics in the last iteration that trains them."""

    def student_terms(self, terms: Terms, spec: IterationSpec) -> None:
        """Refuse an iteration in which no loss says anything about the student.

        A loss may leave out roll-outs of several steps, as a regression does, so these count as
        silent updates; a single step tells at once.
        """
        key = _key("student", spec)
        if key in self.learns:
            return
        values = [(loss, term) for loss, term in terms if term is not None]
        if values:
            self.unspoken[key] = 0
        else:
            self.unspoken.setdefault(key, spec.steps)
            if spec.steps == 1:
                self.finish(spec)
        if values and not any(term.requires_grad for _, term in values):
            raise CannotLearnError(
                f"The student's loss does not depend on the student: the term of "
                f"{_labels(loss for loss, _ in values)} is detached or a constant. It should be "
                "computed from `batch.fake_BCHW` or `batch.student_logits()`."
            )

    def critic_terms(self, terms: Terms, spec: IterationSpec) -> None:
        """Refuse a warm-up of critics that no loss trains."""
        silent = all(term is None or not term.requires_grad for _, term in terms)
        if silent and spec.phase == CRITIC_WARMUP:
            raise CannotLearnError(
                f"No loss trains the critics, so `warmup.critic` trains nothing: "
                f"{_labels(loss for loss, _ in terms)} has no term for them."
            )
        self.no_critic_term = all(term is None for _, term in terms)

    def finish(self, spec: IterationSpec) -> None:
        """Refuse a run, at its end too, in which no loss has ever had a term for the student."""
        if steps := self.unspoken.get(_key("student", spec)):
            where = f" for roll-outs of {steps} steps" if steps > 1 else ""
            raise CannotLearnError(
                f"No loss trains the student: {_labels(spec.losses)} returned None{where}. Add a "
                "loss with a term for the student to `losses`."
            )

    def doubt(self) -> str | None:
        """What to tell at the end of a run that was too short to be refused."""
        updates = self.silent["student", ""]
        if not updates or ("student", "") in self.learns:
            return None
        return (
            f"No gradient has reached the student in its {updates} updates: what is published "
            f"equals its start, or its warm-up. After {TURNS} a run is stopped."
        )

    def gradients(self, metrics: StepMetrics, players: Sequence[Player]) -> None:
        """Stop a run in which one of these players, which are about to step, has had no gradient in
        all of its first updates."""
        for player in players:
            norm, key = metrics.norm(player), _key(player, metrics.spec)
            if norm is None or key in self.learns:
                continue
            if player == "critic" and self.no_critic_term and not metrics.adversarial:
                continue  # no loss uses the critics: a regression alone may keep its pool
            if norm > 0:
                self.learns.add(key)
                continue
            self.silent[key] += 1
            if self.silent[key] >= TURNS:
                if player == "student":
                    self.finish(metrics.spec)
                what = "the drawn heads" if player == "critic" else "the student's weights"
                raise CannotLearnError(
                    f"No gradient has reached {what} in {TURNS} updates. Look at "
                    f"{_labels(metrics.spec.losses)}: its term for the {player} should depend on "
                    f"`batch.{player}_logits()`, and pool, backbone and heads must not detach "
                    "what they are given."
                )

    @property
    def state(self) -> Tensor:
        """What a checkpoint keeps, (6, 3) whole numbers: for each of `KEYS` whether it learns, its
        silent updates, and what `unspoken` has, -1 for nothing."""
        rows = [(k in self.learns, self.silent[k], self.unspoken.get(k, -1)) for k in KEYS]
        return torch.tensor(rows, dtype=torch.int64)

    def load(self, state: Tensor | None) -> None:
        """Put back what `state` gave; None, from a checkpoint of an earlier version, counts as a
        run in which all have learned, since it has come so far."""
        rows = state.tolist() if state is not None else [(1, 0, -1)] * len(KEYS)
        for key, (learns, silent, unspoken) in zip(KEYS, rows, strict=True):
            if learns:
                self.learns.add(key)
            self.silent[key] = silent
            if unspoken >= 0:
                self.unspoken[key] = unspoken


class SilentBatch:
    """What a loss sees of a batch on which every head says 0: logits, and nothing else."""

    def __init__(self, judged: Sequence[HeadLogits]) -> None:
        self._logits = [
            replace(logits, real_BK=_zeros(logits.real_BK), fake_BK=_zeros(logits.fake_BK))
            for logits in judged
        ]

    def critic_logits(self) -> Sequence[HeadLogits]:
        """Zeros."""
        return self._logits

    def perturbed_real_logits(self, sigma: float) -> list[Tensor]:
        """Zeros too: a head that is always silent hears no noise."""
        return [logits.real_BK for logits in self._logits]

    perturbed_fake_logits = perturbed_real_logits


def _zeros(logits_BK: Tensor) -> Tensor:
    return torch.zeros_like(logits_BK).requires_grad_()


def silent_loss(losses: Sequence[WeightedLoss], judged: Sequence[HeadLogits]) -> float | None:
    """The critics' loss where every head says 0, such as log 2 of a logistic loss on differences.

    None where nobody judged, and where a term depends on more than logits: a loss with networks is
    not asked, and a copy of the others, so that a question that no run asks changes nothing in one.
    """
    if not judged or any(each.loss.modules() for each in losses):
        return None
    batch, total = cast(TrainBatch, SilentBatch(judged)), 0.0
    for each in losses:
        try:
            term = copy(each.loss).critic(batch)
            total += each.weight * float(term.detach()) if term is not None else 0.0
        except Exception:  # whatever a loss does with a batch that never was
            return None
    return total


def check_warmup(losses: Iterable[WeightedLoss]) -> None:
    """Refuse a student's warm-up by a loss whose own networks would stay as they began."""
    for loss in losses:
        if loss.loss.modules():
            raise UserError(
                f"warmup.losses: {loss.guard.label} has networks of its own, which learn with the "
                "critics, and the student warms up without these; put it into `losses`"
            )


def not_of_the_sample(loss: WeightedLoss) -> CannotLearnError:
    """For a student's term whose gradient goes elsewhere than through x_0-hat: it would be lost."""
    return CannotLearnError(
        f"The term of {loss.guard.label} for the student does not depend on the student's sample: "
        "it should be computed from `batch.fake_BCHW` or `batch.student_logits()`. A gradient that "
        "reaches networks by another way is not passed on."
    )


def _key(player: str, spec: IterationSpec) -> tuple[str, str]:
    """The player, with the warm-up that it is in; all stages of the game are one."""
    return player, spec.phase if spec.phase in PHASES else ""


def _labels(losses: Iterable[WeightedLoss]) -> str:
    return ", ".join(loss.guard.label for loss in losses)
