"""Both players with their optimizers, and what one iteration asks of them.

`step.py` says what happens in which order; this file knows how: devices, processes, precision.

Legend: B batch, C channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillkit.errors import UserError
from distillkit.recipe.schema import AdamWConfig
from distillkit.samples.order import BatchSlices
from distillkit.samples.pairs import TeacherSamples
from distillkit.samples.pictures import PictureLatents
from distillkit.training.checks import LearningCheck, Terms, not_of_the_sample, silent_loss
from distillkit.training.guard import Guard
from distillkit.training.guard.returns import check_samples
from distillkit.training.metrics import Pull, StepMetrics
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.models.critic import Critic
from distillkit.training.models.distributed import average_gradients, gradient_sync, unwrap
from distillkit.training.models.optimizers import ClippedGroup, hyperparameters, total_norm
from distillkit.training.models.student import EMA, Student
from distillkit.training.processes import check_agreement, digest_of
from distillkit.training.schedule import IterationSpec, Player
from distillkit.values import Condition, Panel

Panels = Sequence[tuple[Critic, Panel]]
"""The drawn heads of an iteration, critic by critic."""


@dataclass
class TrainState:
    """Everything that an iteration reads or changes."""

    seed: int
    slices: BatchSlices
    samples: TeacherSamples
    student: Student
    ema: EMA | None
    student_optimizer: Optimizer
    critics: Sequence[Critic]
    critic_optimizer: Optimizer | None
    """Of all heads, and of `aux_networks`."""
    critic_optim: AdamWConfig
    aux_optim: AdamWConfig
    accelerator: Any
    aux_networks: Sequence[nn.Module] = ()
    """Networks beside the heads that train with the critics: of losses, of a backbone."""
    aux_guards: Sequence[Guard] = ()
    """Who to name when one of them breaks, for each."""
    pictures: PictureLatents | None = None
    """Real pictures in the place of the teacher's samples."""
    offload_heads: bool = False
    """Whether heads that are not drawn stay in main memory."""
    student_guard: Guard = field(default_factory=lambda: Guard("the student"))
    """Who to name when the student's network breaks its contract."""
    learning: LearningCheck = field(default_factory=LearningCheck)
    silent: dict[str, float | None] = field(default_factory=dict)
    """The critics' loss where every head says 0, by the losses' names; asked for once."""
    asked: Callable[[], bool] = lambda: False
    """Whether this process has been asked to stop; the others learn it with the measurements."""
    grad: Callable[..., Sequence[Tensor | None]] = torch.autograd.grad

    def student_samples(
        self, x_T_BCHW: Tensor, cond: Condition, steps: int, renoise_SBCHW: Tensor
    ) -> Tensor:
        """x_0-hat, the student's samples (B, C, H, W). Raises `PartError` for anything else."""
        guard = self.student_guard
        with guard("a call of the network"):
            x_0_BCHW = self.student.rollout(x_T_BCHW, cond, steps, renoise_SBCHW)
        guard.once("the network", lambda: check_samples(x_0_BCHW, x_T_BCHW.shape))
        return x_0_BCHW

    def draw_panels(self, i: int, steps: int, metrics: StepMetrics | None = None) -> Panels:
        """The heads of iteration `i`, of each critic that judges roll-outs of `steps` steps; every
        process draws the same."""
        judging = [critic for critic in self.critics if critic.judges(steps)]
        if self.critics and not judging:
            raise UserError(
                f"critics: none judges roll-outs of length {steps}; see `steps` of each"
            )
        panels = [(critic, critic.draw(i, self.slices.total)) for critic in judging]
        if metrics is not None:
            metrics.expect(panels)
            if self.accelerator.num_processes > 1:
                views = [(v.view, v.heads, v.rows) for _, p in panels for v in p.views]
                t_B = [v.t_B for _, p in panels for v in p.views]
                check_agreement(self.accelerator, "the drawn heads", digest_of(views, *t_B))
        return panels

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Inside: mixed precision, and gradients are exchanged in the last micro-batch alone."""
        module = self.student.network.module
        with self.accelerator.autocast(), gradient_sync(module, self.accelerator, last):
            yield

    @contextmanager
    def heads_on_device(self, panels: Panels) -> Iterator[None]:
        """Inside, the drawn heads are on the device with their moments."""
        with ExitStack() as stack:
            for critic, panel in panels if self.offload_heads else ():
                device, optimizer = self.accelerator.device, self.critic_optimizer
                stack.enter_context(critic.on_device(panel.head_ids, device, optimizer))
            yield

    def backward_critics(self, terms: Terms, spec: IterationSpec) -> Tensor:
        """Add a micro-batch's share of the critics' gradient; returns its share of the loss."""
        self.learning.critic_terms(terms, spec)
        share = self._share([loss.weight * term for loss, term in terms if term is not None])
        if share.requires_grad:
            self.accelerator.backward(share)
        return share.detach()

    def backward_student(
        self, terms: Terms, spec: IterationSpec, batch: LazyTrainBatch
    ) -> tuple[Tensor, list[Pull]]:
        """Add a micro-batch's share of the student's gradient; returns its share of the loss, and
        each loss's own gradient at x_0-hat.

        Taking them one by one costs nothing more, since the losses' graphs meet at x_0-hat alone.
        Their sum is then passed through the student once.
        """
        self.learning.student_terms(terms, spec)
        weighted = [(loss, loss.student_weight * t) for loss, t in terms if t is not None]
        shares = [(loss, t / self.slices.accumulate) for loss, t in weighted if t.requires_grad]
        pulls: list[Pull] = []
        for n, (loss, share) in enumerate(shares):
            keep = n + 1 < len(shares)  # two losses may share the graph of the backbone
            leaf = [batch.fake_BCHW]
            [grad_BCHW] = self.grad(share, leaf, retain_graph=keep, allow_unused=True)
            if grad_BCHW is None:
                raise not_of_the_sample(loss)
            pulls.append(Pull.of(loss.name, grad_BCHW, batch))
        if pulls:
            total_BCHW = sum((pull.grad_BCHW for pull in pulls[1:]), pulls[0].grad_BCHW)
            self.accelerator.backward(batch.rollout_BCHW, gradient=total_BCHW)
        return self._share([term for _, term in weighted]).detach(), pulls

    def silent_loss(self, spec: IterationSpec, batch: LazyTrainBatch) -> float | None:
        """The critics' loss of this iteration where every head says 0, if logits tell it."""
        key = ", ".join(loss.name for loss in spec.losses)
        if key not in self.silent:
            self.silent[key] = silent_loss(spec.losses, batch.judged_logits())
        return self.silent[key]

    def _share(self, terms: Sequence[Tensor]) -> Tensor:
        return sum(terms, torch.zeros(())) / self.slices.accumulate

    def finish_gradients(
        self, panels: Panels, metrics: StepMetrics, players: Sequence[Player]
    ) -> None:
        """For the players about to step: average the heads' gradients over processes, read all
        measurements, and clip.

        Raises `Diverged` for what is not finite, and `CannotLearnError` for a player without any
        gradient in its first updates; nothing has been stepped then.
        """
        groups: list[ClippedGroup] = []
        if "critic" in players and self.critic_optimizer is not None:
            critics = self._critic_groups(panels)
            if self.accelerator.num_processes > 1:
                self._average([p for parameters, _ in critics for p in parameters], panels)
            groups += [ClippedGroup.of(*group) for group in critics]
            metrics.add_norm("critic", total_norm(groups))
        if "student" in players:
            parameters = self.student_optimizer.param_groups[0]["params"]
            groups.append(student := ClippedGroup.of(parameters, metrics.spec.optim))
            metrics.add_norm("student", total_norm([student]))
        metrics.read(self.accelerator, self.asked())
        metrics.check_finite()
        self.learning.gradients(metrics, players)
        for group in groups:
            group.clip()

    def _average(self, parameters: Sequence[nn.Parameter], panels: Panels) -> None:
        """Average the gradients of heads and auxiliary networks over processes.

        The pool stays outside the data-parallel wrapper, since most heads have no gradient.
        """
        reduce = self.accelerator.reduce
        if any(judged.rows is not None for _, panel in panels for judged in panel.views):
            # A head of some pictures may have none of them here: then its gradient is zero.
            here = [float(p.grad is not None) for p in parameters]
            has = reduce(torch.tensor(here, device=self.accelerator.device), "sum")
            for p, count in zip(parameters, has.tolist(), strict=True):
                if count and p.grad is None:
                    p.grad = torch.zeros_like(p)
        average_gradients(parameters, reduce)

    def step_critics(self, panels: Panels, spec: IterationSpec) -> None:
        """Step the drawn heads and the auxiliary networks; nothing else has a gradient."""
        if self.critic_optimizer is None:
            return
        for critic, panel in panels:
            critic.count_updates(panel.head_ids)
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad(set_to_none=True)
        for critic, panel in panels:
            heads = [critic.pool.heads[h] for h in panel.head_ids]
            for loss in spec.losses:
                loss.after_critic_step(heads)

    def _critic_groups(self, panels: Panels) -> list[tuple[list[nn.Parameter], AdamWConfig]]:
        drawn = [p for critic, panel in panels for p in critic.parameters(panel.head_ids)]
        aux = [p for m in self.aux_networks for p in m.parameters() if p.requires_grad]
        return [(drawn, self.critic_optim), (aux, self.aux_optim)]

    def step_student(self, spec: IterationSpec) -> None:
        """Step the student with its phase's hyperparameters, then its EMA."""
        optimizer = self.student_optimizer
        [group] = optimizer.param_groups
        if spec.resets_optimizer:
            optimizer.state.clear()
        group.update(hyperparameters(spec.optim))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()

    def refresh_pools(self, i: int, panels: Panels, metrics: StepMetrics) -> None:
        """Re-initialise the heads that each pool's refresh policy picks after iteration `i`."""
        for critic, _ in panels:
            critic.count(metrics.head_scores(critic.name))
            picked = critic.pick(i, critic.stats())
            check_agreement(self.accelerator, "the heads to reset", digest_of(picked))
            critic.reset(i, picked, self.critic_optimizer)

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Inside, the student's network is unwrapped and has the weights that are published."""
        network = self.student.network
        wrapped, network.module = network.module, unwrap(network.module)
        try:
            with self.ema.applied_to(network.module) if self.ema else nullcontext():
                yield
        finally:
            network.module = wrapped
