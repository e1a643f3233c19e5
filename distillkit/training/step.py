"""One iteration of adversarial distillation (paper, sections 3.1 to 3.3), read top to bottom.

Both players' gradients are taken at the same weights and then both step, so that `accumulate`
micro-batches are exactly one larger batch for both of them.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from distillkit.contracts import Panel
from distillkit.randomness import generator, noise
from distillkit.runs.checkpoint import forget
from distillkit.training.critics import Judged, Pictures, pairwise_accuracy
from distillkit.training.divergence import Outcome
from distillkit.training.schedule import Terms, Turn
from distillkit.training.train_state import Players


def iterate(i: int, turn: Turn, players: Players) -> Outcome:
    """Iteration `i`: look at fresh pictures, improve the drawn heads and the student, refresh."""
    deal, seed, outcome = players.deal, players.seed, Outcome(turn)
    panel = None
    if turn.trains_critic and players.critics is not None:
        panel = players.critics.pool.draw(deal.total, generator(seed, "panel", i))

    drawn = panel.heads if panel else []
    with players.seated(drawn):
        for micro in range(deal.accumulate):
            judges = panel.of(deal.rows(micro)) if panel else None
            with players.micro_batch(last=micro + 1 == deal.accumulate):
                pictures = show(players, turn, deal.positions(i, micro), judges)
                if turn.trains_critic:
                    outcome.critic += players.backward(total(turn.terms, "critic", pictures))
                    outcome.see(pairwise_accuracy(pictures.for_critic()))
                if turn.trains_student:
                    outcome.student += players.backward(total(turn.terms, "student", pictures))
        players.agree(outcome)
        outcome.check()

        if turn.trains_critic:
            players.step_critic(drawn, turn.terms)
        if turn.trains_student:
            players.step_student(turn)
    if turn.trains_critic and players.critics and players.refresh:
        age_N = i + 1 - players.born_N
        flushed = players.refresh.pick(i, age_N, generator(seed, "refresh", i))
        players.critics.pool.reset(flushed, generator(seed, "reset", i))
        forget(players.critic_optimizer, players.head_parameters(flushed))
        players.born_N[list(flushed)] = i + 1
    return outcome


def show(players: Players, turn: Turn, positions: range, panel: Panel | None) -> Pictures:
    """The teacher's and the student's pictures for the same prompts, and the same x_T if asked."""
    pairs, student = players.pairs, players.student
    ids = [pairs.stream.sample_id(p) for p in positions]
    cond, x_T_BCHW = pairs.conditions(ids), pairs.x_T(ids)
    real_BCHW = pairs.x_0(ids, x_T_BCHW, cond)
    if turn.fresh_noise:
        shape = x_T_BCHW.shape[1:]
        x_T_BCHW = noise(shape, players.seed, "fresh x_T", positions).to(x_T_BCHW.device)
    shape = (turn.steps - 1, *x_T_BCHW.shape[1:])
    renoise_SBCHW = noise(shape, players.seed, "renoise", positions).transpose(0, 1)
    with nullcontext() if turn.trains_student else torch.no_grad():
        fake_BCHW = student.rollout(x_T_BCHW, cond, turn.steps, renoise_SBCHW.to(x_T_BCHW.device))
    null = pairs.teacher.null(len(ids)).to(x_T_BCHW.device)
    shown = (x_T_BCHW, cond, null, real_BCHW, fake_BCHW, turn.steps, positions, players.seed)
    if panel is None or players.critics is None:
        return Pictures(*shown)
    return Judged(*shown, critics=players.critics, panel=panel)


def total(terms: Terms, player: str, pictures: Pictures) -> Tensor:
    """Weighted sum of what the losses say of a player; a loss may have nothing to say."""
    said = [(weight, getattr(loss, player)(pictures)) for weight, loss in terms]
    return sum((weight * value for weight, value in said if value is not None), torch.zeros(()))
