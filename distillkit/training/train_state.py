"""Both players with their optimizers, and what one iteration asks of them.

`step.py` says what happens in which order; this file knows how: devices, processes, precision.

Legend: N heads in a pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillkit.contracts import Refresh
from distillkit.randomness import generator
from distillkit.recipe.schema import AdamWConfig
from distillkit.samples.order import BatchSlices
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.critics import Critics
from distillkit.training.distributed import gradient_sync, unwrap
from distillkit.training.divergence import StepMetrics
from distillkit.training.optimizers import delete_state, hyperparameters
from distillkit.training.schedule import IterationSpec, WeightedLosses
from distillkit.training.student import EMA, Student
from distillkit.values import Panel


@dataclass
class TrainState:
    """Everything that an iteration reads or changes."""

    seed: int
    slices: BatchSlices
    samples: TeacherSamples
    student: Student
    ema: EMA | None
    student_optimizer: Optimizer
    critics: Critics | None
    critic_optimizer: Optimizer | None
    """Of the heads, and of `aux_networks`."""
    critic_optim: AdamWConfig
    aux_optim: AdamWConfig
    refresh: Refresh | None
    accelerator: Any
    aux_networks: Sequence[nn.Module] = ()
    """Networks beside the heads that train with the critics: of losses, of a backbone."""
    reset_iteration_N: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Iteration after which each head was last (re-)initialised."""
    offload_heads: bool = False
    """Whether heads that are not drawn stay in main memory."""

    def draw_panel(self, i: int) -> Panel | None:
        """The heads of iteration `i`; every process draws the same. None without a pool."""
        if self.critics is None:
            return None
        return self.critics.pool.draw(self.slices.total, generator(self.seed, "panel", i))

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Inside: mixed precision, and gradients are exchanged in the last micro-batch alone."""
        module = self.student.network.module
        with self.accelerator.autocast(), gradient_sync(module, self.accelerator, last):
            yield

    def backward(self, loss: Tensor, player: Literal["critic", "student"]) -> Tensor:
        """Add a micro-batch's share of a player's gradient; returns its share of the loss."""
        share = loss / self.slices.accumulate
        if share.requires_grad:
            self.accelerator.backward(share)
        return share.detach()

    def all_reduce(self, metrics: StepMetrics) -> None:
        """Give every process the mean of all: they must stop together, and log the same."""
        if self.accelerator.num_processes > 1:
            accuracy = metrics.accuracy
            values = [metrics.critic, metrics.student, *accuracy.values()]
            own = torch.tensor(values, dtype=torch.float32, device=self.accelerator.device)
            critic, student, *means = self.accelerator.reduce(own, "mean").tolist()
            metrics.set_means(critic, student, dict(zip(accuracy, means, strict=True)))

    @contextmanager
    def heads_on_device(self, head_ids: Sequence[int]) -> Iterator[None]:
        """Inside, these heads are on the device with their moments."""
        if not self.offload_heads:
            yield
            return
        self._move(head_ids, self.accelerator.device)
        try:
            yield
        finally:
            self._move(head_ids, "cpu")

    def _move(self, head_ids: Sequence[int], device: Any) -> None:
        if self.critics is None or self.critic_optimizer is None:
            return
        for head in head_ids:
            self.critics.pool.heads[head].to(device)
        for parameter in self.head_parameters(head_ids):
            moments = self.critic_optimizer.state.get(parameter, {})
            moments |= {n: v.to(device) for n, v in moments.items() if isinstance(v, Tensor)}

    def head_parameters(self, head_ids: Sequence[int]) -> list[nn.Parameter]:
        """Parameters of these heads."""
        if self.critics is None:
            return []
        return [p for h in head_ids for p in self.critics.pool.heads[h].parameters()]

    def step_critic(self, head_ids: Sequence[int], losses: WeightedLosses) -> None:
        """Step the drawn heads and the auxiliary networks; nothing else has a gradient."""
        if self.critic_optimizer is None:
            return
        aux = [p for m in self.aux_networks for p in m.parameters() if p.requires_grad]
        groups = ((self.head_parameters(head_ids), self.critic_optim), (aux, self.aux_optim))
        for parameters, optim in groups:
            # The pool stays outside the data-parallel wrapper, since most heads have no gradient:
            # the drawn heads' gradients are averaged over processes here.
            if self.accelerator.num_processes > 1:
                for p in parameters:
                    if p.grad is not None:
                        p.grad = self.accelerator.reduce(p.grad, "mean")
            self._clip(parameters, optim)
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad(set_to_none=True)
        if self.critics is not None:
            for _, loss in losses:
                loss.after_critic_step([self.critics.pool.heads[h] for h in head_ids])

    def step_student(self, spec: IterationSpec) -> None:
        """Step the student with its phase's hyperparameters, then its EMA."""
        optimizer = self.student_optimizer
        [group] = optimizer.param_groups
        if spec.resets_optimizer:
            optimizer.state.clear()
        self._clip(group["params"], spec.optim)
        group.update(hyperparameters(spec.optim))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()

    def refresh_pool(self, i: int) -> None:
        """Re-initialise the heads that the refresh policy picks after iteration `i`.

        Their optimizer state is deleted: a new head must not inherit an old head's momentum.
        """
        if self.critics is None or self.refresh is None:
            return
        picked = self.picked_heads(i)
        self.critics.pool.reset(picked, generator(self.seed, "reset", i))
        delete_state(self.critic_optimizer, self.head_parameters(picked))
        self.reset_iteration_N[list(picked)] = i + 1

    def picked_heads(self, i: int) -> Sequence[int]:
        """The heads that the refresh policy picks after iteration `i`, on every process."""
        if self.refresh is None:
            return []
        age_N = i + 1 - self.reset_iteration_N
        return self.refresh.pick(i, age_N, generator(self.seed, "refresh", i))

    def _clip(self, parameters: Iterable[nn.Parameter], optim: AdamWConfig) -> None:
        if optim.clip is not None and (some := list(parameters)):
            self.accelerator.clip_grad_norm_(some, optim.clip)

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
