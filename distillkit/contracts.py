"""What plugins fulfil, and the few values that flow between them.

Legend: B batch, C latent channels, H, W latent cells, K patch logits of a head, N heads in a pool.
Latents have a standard deviation near 1. Timesteps count from 0 (clean) to 999 (noise) on the
teacher's own schedule. Pictures are RGB in [0, 1]. All tensors of a call share one device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from distillkit.noising import NoiseSchedule, Prediction


@dataclass(frozen=True)
class Condition:
    """What a network is told beside the noisy picture: named tensors, each with B rows.

    The core only slices, joins and moves them; what the names mean is the model family's affair.
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice) -> Condition:
        return Condition({name: tensor[rows] for name, tensor in self.tensors.items()})

    def to(self, device: Any, dtype: Any = None) -> Condition:
        return Condition({name: t.to(device, dtype) for name, t in self.tensors.items()})

    @staticmethod
    def join(parts: Sequence[Condition]) -> Condition:
        """The parts below each other. All must have the same names."""
        import torch

        names = parts[0].tensors
        return Condition({name: torch.cat([p.tensors[name] for p in parts]) for name in names})


@dataclass(frozen=True)
class Window:
    """Where a crop lies in the whole latent, in cells: corners a picture (on the CPU), one size."""

    top_B: Tensor
    left_B: Tensor
    height: int
    width: int
    full_height: int
    full_width: int


@dataclass(frozen=True)
class View:
    """One way to look at a picture (paper, section 3.4)."""

    name: str
    crop: float
    """Side of the crop as a share of the latent's side: 1 is the whole picture (global)."""
    conditional: bool
    """Whether the backbone is told the prompt, or the null condition."""


@dataclass(frozen=True)
class Seat:
    """A drawn head, and the feature level that it judges."""

    level: int
    head: int


@dataclass(frozen=True)
class Look:
    """One look of the panel: through which view, at which noise levels, by which heads."""

    view: View
    t_B: Tensor
    """Discriminator timestep t* of each picture; whole or fractional, 0 to 999."""
    seats: tuple[Seat, ...]


@dataclass(frozen=True)
class Panel:
    """The heads that judge in one iteration (D ~ P in section 3.2)."""

    looks: tuple[Look, ...]

    @property
    def heads(self) -> list[int]:
        """The drawn heads, each once, in rising order."""
        return sorted({seat.head for look in self.looks for seat in look.seats})

    def of(self, rows: slice) -> Panel:
        """The same heads before some of the iteration's pictures."""
        return Panel(tuple(Look(k.view, k.t_B[rows], k.seats) for k in self.looks))


@dataclass(frozen=True)
class Verdict:
    """What one head says: patch logits of paired pictures, higher means "the teacher's"."""

    view: str
    level: int
    t_B: Tensor
    real_BK: Tensor
    fake_BK: Tensor


class Exhibit(Protocol):
    """One iteration's pictures, as the losses see them. Made by `distillkit.training.critics`."""

    x_T_BCHW: Tensor
    """The noise that teacher and student both started from."""
    cond: Condition
    null: Condition
    real_BCHW: Tensor
    """x_0, the teacher's sample."""
    fake_BCHW: Tensor
    """x_0-hat, the student's sample; holds the graph of the student's last step."""
    steps: int
    """Length of the student's roll-out."""

    @property
    def generator(self) -> Generator:
        """For draws of the loss's own; the same at every call."""
        ...

    def for_critic(self) -> Sequence[Verdict]:
        """Verdicts whose gradients reach the drawn heads and nothing else.

        Empty where nobody judges: a recipe without a pool, or the student's warm-up.
        """
        ...

    def for_student(self) -> Sequence[Verdict]:
        """Verdicts whose gradients reach the student through `fake_BK` and nothing else."""
        ...

    def real_perturbed(self, sigma: float) -> Sequence[Tensor]:
        """Logits_BK of the real pictures with noise of std `sigma` added after noising to t*.

        In the order of `for_critic`; costs a backbone pass. For the approximate R1 penalty.
        """
        ...


class Denoiser(Protocol):
    """A diffusion network in its own parameterisation."""

    module: nn.Module
    prediction: Prediction

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The network's output, (B, C, H, W)."""
        ...


class StudentNetwork(Denoiser, Protocol):
    """A denoiser that trains, and that knows how its family is published."""

    def publish(self, folder: Path, timestep_shift: int) -> None:
        """Write a folder that the family's stock library loads, with the shift in it."""
        ...


class Teacher(Protocol):
    """The slow model: encodes prompts, samples, decodes. Frozen: never trained, always in eval."""

    latent_shape: tuple[int, int, int]
    schedule: NoiseSchedule
    denoiser: Denoiser

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt."""
        ...

    def null(self, count: int) -> Condition:
        """The family's null condition, `count` rows."""
        ...

    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Sequence[Generator]) -> Tensor:
        """x_0 from x_T. A stochastic solver draws picture b's noise from `generators[b]`."""
        ...

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1]."""
        ...

    def to(self, device: Any) -> None:
        """Move every network."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Every network, so that the trainer can hold them to "frozen"."""
        ...


class Backbone(Protocol):
    """Turns noisy latents into features, one map a level; heads sit on the levels."""

    channels: tuple[int, ...]
    """Channels of every level's map."""

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        """One map (B, channels[l], h, w) a level, with gradients to `x_t_BCHW` if it asks."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Every network. A parameter that asks for gradients is trained with the critics."""
        ...


class Pool(Protocol):
    """A pool of discriminator heads, and the strategy that draws a panel from it."""

    heads: nn.ModuleList
    """All N heads: feature map (B, C, h, w) -> patch logits (B, K)."""

    def draw(self, batch: int, generator: Generator) -> Panel:
        """The panel of one iteration, for `batch` pictures; depends on the generator alone.

        `batch` counts all micro-batches and processes. The t_B are on the CPU, as the generator is.
        """
        ...

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        """New weights in place, from a CPU generator; the step deletes the optimizer state."""
        ...


class Refresh(Protocol):
    """Which heads are replaced after an iteration (section 3.3)."""

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Heads to reset; `age_N` counts iterations since each head was (re-)initialised.

        `iteration` counts from the run's first, warm-ups included.
        """
        ...


class Loss(Protocol):
    """A term of the players' losses. A term that says nothing of a player returns None."""

    def critic(self, exhibit: Exhibit) -> Tensor | None:
        """Scalar that the drawn heads (and `modules()`) minimise."""
        ...

    def student(self, exhibit: Exhibit) -> Tensor | None:
        """Scalar that the student minimises."""
        ...

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Constrain the heads that were just trained (weight clipping), or do nothing."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Networks of the loss's own that are trained with the critics (a fake score, say)."""
        ...


class Refinement(Protocol):
    """How long a roll-out the student trains, iteration by iteration (section 3.5)."""

    iterations: int

    def stage(self, iteration: int) -> str:
        """Name of the stage that the iteration belongs to."""
        ...

    def steps(self, iteration: int, generator: Generator) -> int:
        """Length of this iteration's roll-out, 1 to 4."""
        ...


class Metrics(Protocol):
    """Figures of a finished run."""

    def prompts(self, count: int, seed: int) -> list[str]:
        """Prompts that training never saw."""
        ...

    def figures(
        self, pictures_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> dict[str, float]:
        """Figures of the pictures beside the teacher's, which were made with other seeds."""
        ...


PromptSource = Sequence[str]
"""Prompts by number. Any sequence will do; the core shuffles, shards and resumes it."""
