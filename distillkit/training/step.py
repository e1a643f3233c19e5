"""One iteration of adversarial distillation (paper, sections 3.1 to 3.3), read top to bottom.

Legend: B batch, C channels, H, W latent cells, S re-noisings of a roll-out (steps - 1).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from distillkit.randomness import noise
from distillkit.training.metrics import StepMetrics
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.schedule import IterationSpec
from distillkit.training.train_state import Panels, TrainState


def train_step(i: int, spec: IterationSpec, state: TrainState) -> StepMetrics:
    """Iteration `i`: fresh samples, gradients of both players, both steps, pool refresh.

    Raises `Diverged` before a loss or gradient that is not finite reaches any weight.
    """
    slices = state.slices
    metrics = StepMetrics(spec, processes=slices.world)
    # Draw this iteration's discriminator heads: D ~ P (section 3.2).
    panels = state.draw_panels(i, spec.steps, metrics) if spec.trains_critic else []
    with state.heads_on_device(panels):
        for micro in range(slices.accumulate):
            with state.micro_batch(last=micro + 1 == slices.accumulate):
                batch = make_batch(state, spec, i, micro, panels)
                if spec.trains_critic:
                    critic_gradients(state, spec, batch, metrics)
                # Simultaneous updates: both players' gradients at the same weights, so that
                # micro-batches add up to exactly one larger batch for both of them.
                if spec.trains_student and not spec.alternates:
                    student_gradients(state, spec, batch, metrics)
        if spec.trains_critic:
            metrics.silent = state.silent_loss(spec, batch)
        state.finish_gradients(panels, metrics, spec.first_players)

        # theta_D steps (L_adv^D, section 3.2): heads that were not drawn have no gradient.
        if spec.trains_critic:
            state.step_critics(panels, spec)
        # Alternating updates: the student learns from heads that have just learned. The maps of a
        # frozen backbone are still there, so only the small heads run again.
        if spec.alternates:
            with state.micro_batch(last=True):
                batch.heads_updated = True
                student_gradients(state, spec, batch, metrics)
            state.finish_gradients(panels, metrics, ("student",))
        # theta_G steps (L_adv^G, section 3.2), then its EMA.
        if spec.trains_student:
            state.step_student(spec)
    # Pool refresh (section 3.3): new weights for a few heads, and no optimizer state.
    if spec.trains_critic:
        state.refresh_pools(i, panels, metrics)
    return metrics


def make_batch(
    state: TrainState, spec: IterationSpec, i: int, micro: int, panels: Panels
) -> LazyTrainBatch:
    """Micro-batch `micro` of iteration `i`: real and fake samples for the same prompts.

    They start from the same x_T, unless the recipe asks for fresh noise. Gradients reach the
    student's last step, or the last `student.gradient_steps` of them.
    """
    samples, slices = state.samples, state.slices
    positions = slices.positions(i, micro)
    ids = [samples.order.sample_id(p) for p in positions]
    cond, x_T_BCHW = samples.conditions(ids), samples.x_T(ids)
    make_real = partial(samples.at, positions, x_T_BCHW, cond)
    if spec.real_pictures and state.pictures is not None:
        make_real = partial(state.pictures.of, samples.order, ids)
    if spec.fresh_noise:
        # The student starts elsewhere than the teacher did: real and fake are unpaired.
        shape = x_T_BCHW.shape[1:]
        x_T_BCHW = noise(shape, state.seed, "fresh x_T", positions, x_T_BCHW.device)

    def make_fake() -> Tensor:
        # x_0-hat after k steps, re-noised between them (section 3.5).
        shape = (spec.steps - 1, *x_T_BCHW.shape[1:])
        renoise_BSCHW = noise(shape, state.seed, "renoise", positions, x_T_BCHW.device)
        # Whatever mode a loss asks for it in: the same sample serves all of them.
        with torch.set_grad_enabled(spec.trains_student):
            return state.student_samples(x_T_BCHW, cond, spec.steps, renoise_BSCHW.transpose(0, 1))

    rows, null = slices.rows(micro), samples.teacher.null(len(ids))
    return LazyTrainBatch(
        iteration=i,
        x_T_BCHW=x_T_BCHW,
        cond=cond,
        null=null.to(x_T_BCHW.device) if null is not None else None,
        make_real=make_real,
        make_fake=make_fake,
        steps=spec.steps,
        positions=positions,
        seed=state.seed,
        panels=[(critic, panel.of(rows)) for critic, panel in panels],
        critics_alone=spec.alternates or not spec.trains_student,
    )


def critic_gradients(
    state: TrainState, spec: IterationSpec, batch: LazyTrainBatch, metrics: StepMetrics
) -> None:
    """Add one micro-batch's gradients of the drawn heads and the auxiliary networks."""
    terms = [(loss, loss.critic_term(batch)) for loss in spec.losses]
    metrics.add_critic(state.backward_critics(terms, spec), batch.judged_logits())
    metrics.add_real(batch)


def student_gradients(
    state: TrainState, spec: IterationSpec, batch: LazyTrainBatch, metrics: StepMetrics
) -> None:
    """Add one micro-batch's gradient of the student, through x_0-hat."""
    terms = []
    for loss in spec.losses:
        reads = batch.student_reads
        terms.append((loss, loss.student_term(batch)))
        if batch.student_reads > reads:
            metrics.adversarial.add(loss.name)
    metrics.add_student(*state.backward_student(terms, spec, batch))
    metrics.add_real(batch)
