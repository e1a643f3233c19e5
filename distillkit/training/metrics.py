"""What is measured in an iteration: losses, accuracies, gradient norms, each loss's own gradient.

Everything is a sum of scalars that stay on the device; `read` brings them to the CPU at once.

Legend: B batch, C channels, H, W latent cells, K patch logits of a head.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit.training.schedule import IterationSpec
from distillkit.values import HeadLogits, JudgedView, Panel, sent

if TYPE_CHECKING:
    from distillkit.training.models.batch import LazyTrainBatch


MIXED = "mixed t"
"""Stands for the timestep of a view whose pictures have several."""


BROKEN = (
    "The {}'s {} is {}, and the real samples have values that are not finite. Nothing was updated "
    "with it; the last good checkpoint is kept. Look at the recipe's teacher, or at the cache of "
    "its samples: a resumed run comes to the same ones again."
)


class Diverged(UserError):
    """Training went wrong; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Pull:
    """One loss's gradient at x_0-hat: how strongly it moves the student, and where to."""

    loss: str
    grad_BCHW: Tensor
    toward_BCHW: Tensor | None
    """From the student's sample to the teacher's; None where no teacher sample was made."""

    @staticmethod
    def of(loss: str, grad_BCHW: Tensor, batch: LazyTrainBatch) -> Pull:
        """The pull of a loss on a batch."""
        has_real = batch.samples.real_is_made
        toward = (batch.real_BCHW - batch.fake_BCHW).detach() if has_real else None
        return Pull(loss, grad_BCHW, toward)


@dataclass
class StepMetrics:
    """The measurements of one iteration, summed over micro-batches and processes."""

    spec: IterationSpec
    _sums: dict[str, Any] = field(default_factory=lambda: defaultdict(float))
    """Sums of scalars, by key; on the device until `read`."""
    _values: dict[str, float] = field(default_factory=dict)
    """The same on the CPU, the sum over processes."""
    processes: int = 1
    adversarial: set[str] = field(default_factory=set)
    """Names of the losses that learn from critics; the others are anchors."""
    silent: float | None = None
    """The critics' loss where every head says 0; None where it is not known."""

    def expect(self, panels: Sequence[tuple[Any, Panel]]) -> None:
        """Register the keys of this iteration's panels, so that every process has the same ones."""
        for critic, panel in panels:
            for judged in panel.views:
                for what in ("accuracy", "margin", "spread", "count"):
                    self._sums[f"{what}/{view_key(critic.name, judged)}"] += 0.0
            for head in panel.head_ids:
                self._sums[f"wins/{critic.name}/{head}"] += 0.0
                self._sums[f"seen/{critic.name}/{head}"] += 0.0

    def add_critic(self, loss: Tensor, head_logits: Sequence[HeadLogits]) -> None:
        """A micro-batch's share of the critics' loss, and the logits that it asked for."""
        self._sums["loss/critic"] += loss
        for logits in head_logits:
            gap_B = (logits.real_BK - logits.fake_BK).detach().mean(1)
            # How often the head ranks real above fake; a tie counts half.
            wins = ((gap_B.sign() + 1) / 2).sum()
            key = self._key(logits)
            # Sums over pictures: heads and micro-batches weigh as many as they judge.
            self._sums[f"accuracy/{key}"] += wins
            self._sums[f"margin/{key}"] += gap_B.sum()
            self._sums[f"spread/{key}"] += logits.real_BK.detach().std(1, correction=0).sum()
            self._sums[f"count/{key}"] += float(len(gap_B))
            self._sums[f"wins/{logits.critic}/{logits.head}"] += wins
            self._sums[f"seen/{logits.critic}/{logits.head}"] += float(len(gap_B))

    def add_student(self, loss: Tensor, pulls: Sequence[Pull]) -> None:
        """A micro-batch's share of the student's loss, and each loss's gradient at x_0-hat."""
        self._sums["loss/student"] += loss
        for pull in pulls:
            grad_BCHW = pull.grad_BCHW.detach()
            self._sums[f"pull/{pull.loss}"] += grad_BCHW.square().sum()
            if pull.toward_BCHW is not None:
                # A step goes against the gradient.
                self._sums[f"along/{pull.loss}"] -= (grad_BCHW * pull.toward_BCHW).sum()
                self._sums[f"toward/{pull.loss}"] += pull.toward_BCHW.square().sum()

    def add_real(self, batch: LazyTrainBatch) -> None:
        """Whether the teacher's samples, where a loss asked for them, have values not finite."""
        broken = (~batch.real_BCHW.isfinite()).any() if batch.samples.real_is_made else 0.0
        self._sums["broken"] += broken

    def add_norm(self, player: str, norm: Tensor) -> None:
        """The norm of a player's whole gradient, the same on every process."""
        self._sums[f"norm/{player}"] = norm / self.processes

    def read(self, accelerator: Any, asked: bool = False) -> None:
        """Bring the sums to the CPU: one transfer, after one exchange between processes.

        `asked`: whether this process has been asked to stop; then `stop` is true on all of them.
        """
        self._sums["asked"] = float(asked)
        keys, device = sorted(self._sums), accelerator.device
        # Numbers of the host in one tensor: each made on a GPU by itself would be waited for.
        own = [n for n, key in enumerate(keys) if isinstance(self._sums[key], Tensor)]
        numbers = [0.0 if isinstance(v, Tensor) else v for v in map(self._sums.get, keys)]
        stacked = sent(torch.tensor(numbers, dtype=torch.float64), device)
        if own:
            values = torch.stack([sent(self._sums[keys[n]], device).double() for n in own])
            stacked = stacked.index_copy(0, sent(torch.tensor(own), device), values)
        if accelerator.num_processes > 1:
            stacked = accelerator.reduce(stacked, "sum")
        self._values = dict(zip(keys, stacked.tolist(), strict=True))

    def check_finite(self) -> None:
        """Raise `Diverged` before a loss or gradient that is not finite reaches the weights."""
        for player in ("critic", "student"):
            for what, value in (
                ("loss", self._mean(f"loss/{player}")),
                ("gradient", self.norm(player)),
            ):
                if value is not None and not math.isfinite(value):
                    if self._values.get("broken"):
                        raise Diverged(BROKEN.format(player, what, value))
                    raise Diverged(
                        f"The {player}'s {what} is {value}. Nothing was updated with it; the last "
                        f"good checkpoint is kept. Try a lower optim.{player}.lr, gradient "
                        f"clipping (optim.{player}.clip), or run.precision: no."
                        f"{self._suspects(player)}"
                    )

    def _suspects(self, player: str) -> str:
        """The losses to look at: for the student those whose own gradient is not finite."""
        losses = self.spec.losses
        if player == "student":
            broken = [name for name, value in self.pulls.items() if not math.isfinite(value)]
            losses = [loss for loss in losses if loss.name in broken] or losses
        return f" Look at {', '.join(loss.guard.label for loss in losses)}." if losses else ""

    @property
    def stop(self) -> bool:
        """Whether a process had been asked to stop when the sums were read."""
        return self._values.get("asked", 0.0) > 0

    @property
    def critic(self) -> float:
        """The critics' loss, the mean over processes."""
        return self._mean("loss/critic") or 0.0

    @property
    def student(self) -> float:
        """The student's loss, the mean over processes."""
        return self._mean("loss/student") or 0.0

    def norm(self, player: str) -> float | None:
        """Norm of a player's gradient; None where it was not computed."""
        return self._values.get(f"norm/{player}")

    @property
    def accuracy(self) -> dict[str, float]:
        """How often a head ranks real above fake, by view and t*; 0.5 is chance."""
        return self._by_view("accuracy")

    @property
    def margin(self) -> dict[str, float]:
        """Mean of (real logit - fake logit) by view and t*."""
        return self._by_view("margin")

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation of real logits over a picture's patches, by view and t*."""
        return self._by_view("spread")

    @property
    def mean_accuracy(self) -> float | None:
        """Pairwise accuracy over all views; None where there were no logits."""
        accuracy = self.accuracy
        return sum(accuracy.values()) / len(accuracy) if accuracy else None

    @property
    def pulls(self) -> dict[str, float]:
        """Norm of each loss's gradient at x_0-hat, over all pictures of the iteration."""
        # Each process's gradient is that of the mean over its own pictures.
        named = self._named("pull").items()
        return {loss: math.sqrt(value) / self.processes for loss, value in named}

    @property
    def directions(self) -> dict[str, float]:
        """Cosine of each loss's step at x_0-hat with (teacher - student): 1 is straight to it."""
        toward, pull = self._named("toward"), self._named("pull")
        return {
            loss: along / math.sqrt(toward[loss] * pull[loss])
            for loss, along in self._named("along").items()
            if toward[loss] * pull[loss] > 0
        }

    @property
    def adversarial_ratio(self) -> float | None:
        """Norm of the adversarial losses' gradient at x_0-hat over the others'; None where
        there are none of one kind."""
        pulls = self.pulls
        ours = [value for name, value in pulls.items() if name in self.adversarial]
        others = [value for name, value in pulls.items() if name not in self.adversarial]
        return sum(ours) / sum(others) if ours and sum(others) > 0 else None

    @property
    def adversarial_cosine(self) -> float | None:
        """Mean cosine of the adversarial losses' steps at x_0-hat with (teacher - student)."""
        found = [value for name, value in self.directions.items() if name in self.adversarial]
        return sum(found) / len(found) if found else None

    def head_scores(self, critic: str) -> dict[int, tuple[float, float]]:
        """Of each drawn head: pictures of which it ranked real above fake, and pictures seen."""
        seen, wins = self._named(f"seen/{critic}"), self._named(f"wins/{critic}")
        return {int(head): (wins[head], count) for head, count in seen.items()}

    def _key(self, logits: HeadLogits) -> str:
        """The key of the logits' view, as `expect` has it for the whole iteration."""
        return logits_key(logits, lambda key: f"count/{key}" in self._sums)

    def _by_view(self, what: str) -> dict[str, float]:
        counts = self._named("count")
        return {k: value / counts[k] for k, value in self._named(what).items() if counts[k]}

    def _named(self, what: str) -> Mapping[str, float]:
        head = f"{what}/"
        return {k.removeprefix(head): v for k, v in self._values.items() if k.startswith(head)}

    def _mean(self, key: str) -> float | None:
        value = self._values.get(key)
        return None if value is None else value / self.processes


def view_key(critic: str, judged: JudgedView) -> str:
    """`global-cond t250`, or `global-cond mixed t`; behind the critic's name where it has one."""
    return f"{_prefix(critic)}{judged.view.name} {_level(judged.t_B)}"


def logits_key(logits: HeadLogits, known: Callable[[str], bool]) -> str:
    """The key of the logits' view, of those that are known for the whole batch.

    Some rows of a view with mixed timesteps may have one of them alone.
    """
    view = f"{_prefix(logits.critic)}{logits.view}"
    key, mixed = f"{view} {_level(logits.t_B)}", f"{view} {MIXED}"
    return mixed if known(mixed) and not known(key) else key


def _prefix(critic: str) -> str:
    return f"{critic}: " if critic else ""


def _level(t_B: Tensor) -> str:
    # Fractional timesteps hardly ever come twice: one key serves them all.
    one = not t_B.is_floating_point() and bool((t_B == t_B[0]).all())
    return f"t{int(t_B[0])}" if one else MIXED
