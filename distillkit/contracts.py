"""What plugins implement: one protocol a socket. The values that they exchange are in `values`.

Legend: B batch, C latent channels, H, W latent cells, K patch logits of a head, N heads in a pool.
Latents have a standard deviation near 1; they are maps always: a family whose network takes tokens
packs and unpacks them itself. A condition's texts are padded to one length: `NAME_mask` (B, L) of
bool says which entries of `NAME` (B, L, ...) are text, and the others must not matter. Timesteps
count from 0 (clean) to 999 (noise) on the teacher's own schedule. Pictures are RGB in [0, 1]. All
tensors of a call share one device, unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from distillkit.noising import NoiseSchedule, Prediction
    from distillkit.values import Condition, HeadLogits, HeadStats, MetricInfo, Panel, Window


class Denoiser(Protocol):
    """A diffusion network in its own parameterisation."""

    module: nn.Module
    # Optional: `module.enable_gradient_checkpointing()`, as diffusers' models have it.
    prediction: Prediction
    """What the network predicts: `epsilon`, `v_prediction`, `sample` or `flow`."""

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The network's output (B, C, H, W) at timesteps t_B, int64, or float for fractional t."""
        ...


class Teacher(Protocol):
    """The slow model: encodes prompts, samples, decodes. Never trained, always in eval mode."""

    latent_shape: tuple[int, int, int]
    """(C, H, W)."""
    image_size: tuple[int, int]
    """Height and width of its pictures, in pixels."""
    schedule: NoiseSchedule
    denoiser: Denoiser

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, one row a prompt; a row depends on its prompt alone."""
        ...

    def null(self, count: int) -> Condition | None:
        """`count` rows of the unconditional condition: the same tensors as `encode` gives.

        None where the model has none, as `TeacherConfig.has_null` says.
        """
        ...

    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Sequence[Generator]) -> Tensor:
        """x_0 (B, C, H, W) from x_T. A stochastic solver draws picture b's noise from
        `generators[b]`."""
        ...

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1]; gradients of them reach x_0 if it requires
        them, for critics that see pictures."""
        ...

    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pictures in [0, 1] of its own size."""
        ...

    def to(self, device: Any) -> None:
        """Move every network."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Every network; the trainer freezes them."""
        ...

    # Optional: `adapted(rank: int) -> Denoiser` gives a denoiser of its own over the same frozen
    # weights, that begins as the teacher's: its module's parameters are small matrices of that
    # rank, in float32, and they train. For losses that learn a second score.


class StudentNetwork(Denoiser, Protocol):
    """A denoiser that trains, and that can be published."""

    def publish(self, folder: Path, timestep_shift: int) -> None:
        """Write a folder that the family's stock library loads, with the timestep shift in it."""
        ...


class Backbone(Protocol):
    """The discriminators' feature extractor: noisy latents -> one feature map a level."""

    channels: tuple[int, ...]
    """Channels of every level's map."""

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        """One map (B, channels[l], h, w) a level, with gradients to `x_t_BCHW` if it requires
        them, in any format of real numbers. `window` says where x_t was cropped from the whole
        latent."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Every network. A parameter that requires gradients is trained with the critics."""
        ...

    # Optional: `cell = n` lets crops begin and end at multiples of n latent cells only, for a
    # network that takes patches of n by n.
    # Optional: `sees_pictures = True` gives `features` decoded pictures (B, 3, height, width) in
    # the place of noisy latents, cropped where the view asks for it; t_B is 0 then.
    # Optional: `pooled_channels: int` and `pooled(cond) -> Tensor` (B, pooled_channels), the prompt
    # as one vector, for heads that see it.


class Pool(Protocol):
    """A pool of discriminator heads, and the strategy that draws a panel from it (section 3.2)."""

    heads: nn.ModuleList
    """All N heads: feature map (B, C, h, w) -> patch logits (B, K). A head's logits of a picture
    depend on that picture alone: no batch statistics, no counters. A head with an attribute
    `sees_prompt` that is true is called with a second argument: the pooled prompt (B, P) of its
    view, which is the null condition's in a view without the prompt."""

    def draw(self, batch: int, generator: Generator) -> Panel:
        """The panel of one iteration, for `batch` pictures; a function of the generator alone.

        `batch` counts all micro-batches and processes. The panel's t_B are on the CPU, as the
        generator is.
        """
        ...

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        """Re-initialise these heads in place, from a CPU generator. Their optimizer state is
        deleted by the training step."""
        ...


class Refresh(Protocol):
    """Which heads are re-initialised after an iteration (pool refresh, section 3.3)."""

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """Distinct indices of heads to reset, given each head's age, updates and accuracy.

        Called after the iterations in which the pool's critic judged; `iteration` counts these from
        0. A function of the arguments alone: every process must pick the same heads.
        """
        ...


class TrainBatch(Protocol):
    """One micro-batch of teacher (real) and student (fake) samples, as the losses see it.

    Real and fake samples are made when a loss first asks for them.
    """

    iteration: int
    """Counts from the run's first, warm-ups included."""
    x_T_BCHW: Tensor
    """The noise that the student started from; the teacher's too, unless `samples.noise: fresh`."""
    cond: Condition
    null: Condition | None
    """The unconditional condition, B rows; None where the teacher has none."""
    steps: int
    """Length of the student's roll-out."""

    @property
    def real_BCHW(self) -> Tensor:
        """x_0, the teacher's sample."""
        ...

    @property
    def fake_BCHW(self) -> Tensor:
        """x_0-hat, the student's sample: a leaf, whose gradient is passed on to the student's last
        `student.gradient_steps`. `detach()` it for a term of the critics."""
        ...

    def noise(self, purpose: str) -> Tensor:
        """Standard normal noise (B, C, H, W) for a loss; the same at every call.

        Keyed by each picture's number, as `timesteps` is: a loss draws the same for a picture
        however the batch is split into micro-batches and processes.
        """
        ...

    def timesteps(self, purpose: str, low: int, high: int) -> Tensor:
        """Timesteps (B,) from `low` up to, not including, `high`, int64; the same at every call."""
        ...

    def critic_logits(self) -> Sequence[HeadLogits]:
        """Logits whose gradients reach the drawn heads, and a backbone that trains; nothing else.
        Empty without a pool, and in the student's warm-up.
        """
        ...

    def student_logits(self) -> Sequence[HeadLogits]:
        """Logits whose gradients reach the student through `fake_BK` and nothing else."""
        ...

    def perturbed_real_logits(self, sigma: float) -> Sequence[Tensor]:
        """Logits (B, K) of the real pictures with noise of std `sigma` added after noising to t*.

        In the order of `critic_logits`; costs a backbone pass. For the approximate R1 penalty.
        """
        ...

    def perturbed_fake_logits(self, sigma: float) -> Sequence[Tensor]:
        """The same of the fake pictures, detached from the student. For approximate R2."""
        ...


class Loss(Protocol):
    """A term of the two players' losses. A term without a part for a player returns None for it."""

    def critic(self, batch: TrainBatch) -> Tensor | None:
        """Scalar that the drawn heads (and `modules()`) minimise; a mean over the batch."""
        ...

    def student(self, batch: TrainBatch) -> Tensor | None:
        """Scalar that the student minimises; a mean over the batch."""
        ...

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Constrain the heads that were just trained (weight clipping), or do nothing."""
        ...

    def modules(self) -> Sequence[nn.Module]:
        """Networks of the loss that are trained with the critics (a fake score, say)."""
        ...


class Refinement(Protocol):
    """Steps of the student's roll-out, by iteration from 0 after the warm-ups (section 3.5)."""

    iterations: int

    def stage(self, iteration: int) -> str:
        """Name of the stage that the iteration belongs to; it names the stage's snapshot."""
        ...

    def steps(self, iteration: int, generator: Generator) -> int:
        """Length of this iteration's roll-out, 1 to 4."""
        ...


class Pictures(Protocol):
    """Pictures that are read when asked for; a tensor (B, 3, height, width) is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Some of them, (B, 3, height, width) in [0, 1], float32 on the CPU."""
        ...


class Metrics(Protocol):
    """What judges a student's pictures beside its teacher's."""

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        """Every metric that `compute` returns: title, which values are better, floor or none."""
        ...

    def prompts(self, count: int, seed: int) -> list[str]:
        """Prompts that training never saw."""
        ...

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        """Each metric of the pictures. `teacher_B3HW`: the teacher's pictures of the same prompts,
        made with other noise."""
        ...

    # Optional: `measure(images: Pictures, prompts, teacher: Pictures | None) -> Measurement` is
    # called in the place of `compute` by whoever has it. The pictures may lie on disk: take slices.
    # `teacher` is None only where the config's `needs_teacher` is false. A measurement may have
    # each picture's own value, by which `distillkit compare` pairs pictures.


PromptSource = Sequence[str]
"""Prompts by index. Any sequence will do; the core shuffles it and splits it over processes."""


class PictureSource(Protocol):
    """A prompt source whose prompts are captions of pictures, for `samples.real: pictures`."""

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int], height: int, width: int) -> Tensor:
        """The pictures (B, 3, height, width) in [0, 1] of the captions at these indices."""
        ...

    def digest(self) -> str:
        """A short text that changes when a picture does; caches of their latents depend on it."""
        ...
