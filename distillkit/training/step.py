"""One iteration of adversarial distillation (paper, sections 3.1 to 3.3), read top to bottom.

Legend: B batch, C channels, H, W latent cells, S re-noisings of a roll-out (steps - 1).
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from distillkit.randomness import noise
from distillkit.training.critics import LazyTrainBatch, pairwise_accuracy
from distillkit.training.divergence import StepMetrics
from distillkit.training.schedule import IterationSpec, WeightedLosses
from distillkit.training.train_state import TrainState
from distillkit.values import Panel


def train_step(i: int, spec: IterationSpec, state: TrainState) -> StepMetrics:
    """Iteration `i`: fresh samples, gradients of both players, both steps, pool refresh.

    Raises `Diverged` before a loss that is not finite reaches any weight.
    """
    slices, metrics = state.slices, StepMetrics(spec)
    # Draw this iteration's discriminator heads: D ~ P (section 3.2).
    panel = state.draw_panel(i) if spec.trains_critic else None
    head_ids = panel.head_ids if panel else []
    with state.heads_on_device(head_ids):
        # Both players' gradients are taken at the same weights (simultaneous descent), so that
        # micro-batches add up to exactly one larger batch for both of them.
        for micro in range(slices.accumulate):
            seen_by = panel.of(slices.rows(micro)) if panel else None
            with state.micro_batch(last=micro + 1 == slices.accumulate):
                batch = make_batch(state, spec, slices.positions(i, micro), seen_by)
                accumulate_gradients(state, spec, batch, metrics)
        state.all_reduce(metrics)
        metrics.check_finite()

        # theta_D and theta_G step (equations 4 and 5); undrawn heads have no gradient and rest.
        if spec.trains_critic:
            state.step_critic(head_ids, spec.losses)
        if spec.trains_student:
            state.step_student(spec)
    # Pool refresh (section 3.3): new weights for a few heads, and no optimizer state.
    if spec.trains_critic:
        state.refresh_pool(i)
    return metrics


def make_batch(
    state: TrainState, spec: IterationSpec, positions: range, panel: Panel | None
) -> LazyTrainBatch:
    """Teacher (real) and student (fake) samples for the same prompts, from the same x_T if asked.

    `positions`: the pictures' numbers in the run. Gradients reach the student's last step.
    """
    samples = state.samples
    ids = [samples.order.sample_id(p) for p in positions]
    cond, x_T_BCHW = samples.conditions(ids), samples.x_T(ids)
    real_BCHW = samples.x_0(ids, x_T_BCHW, cond)
    if spec.fresh_noise:
        # The student starts elsewhere than the teacher did: real and fake are unpaired.
        shape = x_T_BCHW.shape[1:]
        x_T_BCHW = noise(shape, state.seed, "fresh x_T", positions).to(x_T_BCHW.device)
    # x_0-hat after k steps, re-noised between them (section 3.5).
    shape = (spec.steps - 1, *x_T_BCHW.shape[1:])
    renoise_SBCHW = noise(shape, state.seed, "renoise", positions).transpose(0, 1)
    with nullcontext() if spec.trains_student else torch.no_grad():
        fake_BCHW = state.student.rollout(
            x_T_BCHW, cond, spec.steps, renoise_SBCHW.to(x_T_BCHW.device)
        )
    return LazyTrainBatch(
        x_T_BCHW=x_T_BCHW,
        cond=cond,
        null=samples.teacher.null(len(ids)).to(x_T_BCHW.device),
        real_BCHW=real_BCHW,
        fake_BCHW=fake_BCHW,
        steps=spec.steps,
        positions=positions,
        seed=state.seed,
        critics=state.critics if panel else None,
        panel=panel,
    )


def accumulate_gradients(
    state: TrainState, spec: IterationSpec, batch: LazyTrainBatch, metrics: StepMetrics
) -> None:
    """Add one micro-batch's gradients to those of the players that train in this iteration."""
    if spec.trains_critic:
        loss = critic_loss(spec.losses, batch)
        metrics.add_critic(state.backward(loss, "critic"), pairwise_accuracy(batch.critic_logits()))
    if spec.trains_student:
        loss = student_loss(spec.losses, batch)
        metrics.add_student(state.backward(loss, "student"))


def critic_loss(losses: WeightedLosses, batch: LazyTrainBatch) -> Tensor:
    """Weighted sum of the losses' terms for the critics."""
    return _weighted_sum([(weight, loss.critic(batch)) for weight, loss in losses])


def student_loss(losses: WeightedLosses, batch: LazyTrainBatch) -> Tensor:
    """Weighted sum of the losses' terms for the student."""
    return _weighted_sum([(weight, loss.student(batch)) for weight, loss in losses])


def _weighted_sum(terms: list[tuple[float, Tensor | None]]) -> Tensor:
    return sum((weight * term for weight, term in terms if term is not None), torch.zeros(()))
