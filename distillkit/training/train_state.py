"""The two players with their optimizers, and what one iteration asks of them.

`step.py` says what happens in which order; here stands how: devices, processes, precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillkit.contracts import Refresh
from distillkit.recipe.schema import AdamW
from distillkit.samples.order import Deal
from distillkit.samples.pairs import Pairs
from distillkit.training.critics import Critics
from distillkit.training.distributed import summing
from distillkit.training.divergence import Outcome
from distillkit.training.optimizers import numbers
from distillkit.training.schedule import Terms, Turn
from distillkit.training.student import Average, Student


@dataclass
class Players:
    """Everything that an iteration touches."""

    seed: int
    deal: Deal
    pairs: Pairs
    student: Student
    average: Average | None
    student_optimizer: Optimizer
    critics: Critics | None
    critic_optimizer: Optimizer | None
    """Of the heads, and of `others`."""
    critic_optim: AdamW
    others_optim: AdamW
    refresh: Refresh | None
    accelerator: Any
    others: Sequence[nn.Module] = ()
    """Networks beside the heads that train with the critics."""
    born_N: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Iteration after which each head was (re-)initialised."""
    heads_wait: bool = False
    """Whether heads that are not drawn wait in main memory."""

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Precision as the recipe says; ranks exchange gradients in the last micro-batch alone."""
        module = self.student.network.module
        with self.accelerator.autocast(), summing(module, self.accelerator, last):
            yield

    def backward(self, loss: Tensor) -> float:
        """Add a micro-batch's share of the gradient; returns its share of the loss."""
        share = loss / self.deal.accumulate
        if share.requires_grad:
            self.accelerator.backward(share)
        return float(share.detach())

    def agree(self, outcome: Outcome) -> None:
        """Give every rank the mean of all: they must stop together, and log the same."""
        if self.accelerator.num_processes > 1:
            names = list(outcome.accuracy)
            values = [outcome.critic, outcome.student, *outcome.accuracy.values()]
            mine = torch.tensor(values, dtype=torch.float32, device=self.accelerator.device)
            mean = self.accelerator.reduce(mine, "mean").tolist()
            outcome.critic, outcome.student = mean[:2]
            outcome.seen = [dict(zip(names, mean[2:], strict=True))]

    @contextmanager
    def seated(self, drawn: Sequence[int]) -> Iterator[None]:
        """Inside, the drawn heads are on the device with their moments."""
        if not self.heads_wait:
            yield
            return
        self._move(drawn, self.accelerator.device)
        try:
            yield
        finally:
            self._move(drawn, "cpu")

    def _move(self, heads: Sequence[int], device: Any) -> None:
        if self.critics is None or self.critic_optimizer is None:
            return
        for head in heads:
            self.critics.pool.heads[head].to(device)
        for parameter in self.head_parameters(heads):
            state = self.critic_optimizer.state.get(parameter, {})
            state |= {n: v.to(device) for n, v in state.items() if isinstance(v, Tensor)}

    def head_parameters(self, heads: Sequence[int]) -> list[nn.Parameter]:
        """Parameters of these heads."""
        if self.critics is None:
            return []
        return [p for h in heads for p in self.critics.pool.heads[h].parameters()]

    def step_critic(self, drawn: Sequence[int], terms: Terms) -> None:
        """Move the drawn heads, and what trains beside them; nothing else has a gradient."""
        if self.critic_optimizer is None:
            return
        others = [p for m in self.others for p in m.parameters() if p.requires_grad]
        moved = ((self.head_parameters(drawn), self.critic_optim), (others, self.others_optim))
        for parameters, optim in moved:
            # The pool stays outside the data-parallel wrapper: most of it has no gradient.
            if self.accelerator.num_processes > 1:
                for p in parameters:
                    if p.grad is not None:
                        p.grad = self.accelerator.reduce(p.grad, "mean")
            self._clip(parameters, optim)
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad(set_to_none=True)
        if self.critics is not None:
            for _, loss in terms:
                loss.after_critic_step([self.critics.pool.heads[h] for h in drawn])

    def step_student(self, turn: Turn) -> None:
        """Move the student with its phase's numbers, and its running average after it."""
        optimizer = self.student_optimizer
        [group] = optimizer.param_groups
        if turn.fresh:
            optimizer.state.clear()
        self._clip(group["params"], turn.optim)
        group.update(numbers(turn.optim))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def _clip(self, parameters: Iterable[nn.Parameter], optim: AdamW) -> None:
        if optim.clip is not None and (some := list(parameters)):
            self.accelerator.clip_grad_norm_(some, optim.clip)

    @contextmanager
    def published(self) -> Iterator[None]:
        """Inside, the student's network is unwrapped and has the weights that are published."""
        network = self.student.network
        wrapped, network.module = network.module, self.accelerator.unwrap_model(network.module)
        average = self.average
        try:
            with average.worn_by(network.module) if average else nullcontext():
                yield
        finally:
            network.module = wrapped
