"""When what trains: student warm-up, critic warm-up, then the refinement's stages.

An iteration's spec is a pure function of its number, so a resumed run needs no state for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from distillkit.contracts import Loss, Refinement, TrainBatch
from distillkit.randomness import generator
from distillkit.recipe.schema import AdamWConfig, Recipe
from distillkit.training.guard import Guard
from distillkit.training.guard.returns import check_loss

if TYPE_CHECKING:
    from torch import Tensor, nn

Player = Literal["critic", "student"]
"""`critic` is all that trains against the student: the drawn heads, a backbone that trains, and
networks of the losses' own."""

STUDENT_WARMUP = "student warm-up"
CRITIC_WARMUP = "critic warm-up"


@dataclass(frozen=True)
class WeightedLoss:
    """A term of the losses with its weights, and who to name when it breaks its contract."""

    name: str
    """As logs and reports show it."""
    loss: Loss
    weight: float = 1.0
    """Factor of the critics' term."""
    student_weight: float = 1.0
    """Factor of the student's term; below `weight` while it is ramped up."""
    ramp: int = 0
    """Joint iterations over which the student's weight rises from 0."""
    steps: tuple[int, ...] = ()
    """Lengths of the roll-outs in which it trains; empty for all."""
    guard: Guard = field(default_factory=lambda: Guard("a loss"))

    def critic_term(self, batch: TrainBatch) -> Tensor | None:
        """The scalar that the critics minimise; None where the loss has no term for them."""
        with self.guard("critic()"):
            term = self.loss.critic(batch)
        self.guard.once("critic()", lambda: check_loss(term))
        return term

    def student_term(self, batch: TrainBatch) -> Tensor | None:
        """The scalar that the student minimises; None where the loss has no term for it."""
        with self.guard("student()"):
            term = self.loss.student(batch)
        self.guard.once("student()", lambda: check_loss(term))
        return term

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Let the loss constrain the heads that were just stepped."""
        with self.guard("after_critic_step()"):
            self.loss.after_critic_step(heads)

    def trains(self, steps: int) -> bool:
        """Whether it has a part in roll-outs of this length."""
        return not self.steps or steps in self.steps

    def at(self, i: int) -> WeightedLoss:
        """The same at joint iteration `i`: adversarial gradients of heads that know nothing yet
        would push the student anywhere, so their weight may rise linearly."""
        if i >= self.ramp:
            return self
        return replace(self, student_weight=self.weight * (i + 1) / (self.ramp + 1))


@dataclass(frozen=True)
class IterationSpec:
    """What one iteration does."""

    phase: str
    """Name of the warm-up, or of the refinement's stage."""
    losses: Sequence[WeightedLoss]
    trains_student: bool
    trains_critic: bool
    steps: int
    """Length of the student's roll-out."""
    optim: AdamWConfig
    """The student's learning rate, betas and clipping in this iteration."""
    resets_optimizer: bool
    """Whether the student's optimizer state is deleted before this iteration's step."""
    ends_stage: bool
    """Whether a snapshot of the student is due after this iteration."""
    fresh_noise: bool = False
    """Whether the student starts from noise of its own, and not from the teacher's x_T."""
    real_pictures: bool = False
    """Whether real is a picture of the prompts' source, and not the teacher's sample."""
    alternates: bool = False
    """Whether the student's gradient is taken after the critics' step, and not before it."""

    @property
    def first_players(self) -> tuple[Player, ...]:
        """The players whose gradients are taken before any step of this iteration."""
        student = self.trains_student and not self.alternates
        both: tuple[tuple[Player, bool], ...] = (
            ("critic", self.trains_critic),
            ("student", student),
        )
        return tuple(player for player, plays in both if plays)


@dataclass(frozen=True)
class TrainSchedule:
    """The phases of a run, end to end."""

    recipe: Recipe
    refinement: Refinement
    losses: Sequence[WeightedLoss]
    warmup_losses: Sequence[WeightedLoss]

    @property
    def start(self) -> int:
        """First iteration in which both players train."""
        return self.recipe.warmup.student + self.recipe.warmup.critic

    def __len__(self) -> int:
        return self.start + self.refinement.iterations

    def spec(self, iteration: int) -> IterationSpec:
        """What iteration `iteration` (from 0) does."""
        warmup = self.recipe.warmup
        if iteration < warmup.student:
            return self._student_warmup(iteration)
        if iteration < self.start:
            return self._critic_warmup()
        return self._joint(iteration - self.start)

    def _student_warmup(self, i: int) -> IterationSpec:
        recipe = self.recipe
        optim = recipe.optim.warmup or recipe.optim.student
        return IterationSpec(
            phase=STUDENT_WARMUP,
            losses=self.warmup_losses,
            trains_student=True,
            trains_critic=False,
            steps=1,
            optim=optim.at(i / recipe.warmup.student),
            resets_optimizer=i == 0,
            ends_stage=False,
        )

    def _critic_warmup(self) -> IterationSpec:
        return IterationSpec(
            phase=CRITIC_WARMUP,
            losses=[loss for loss in self.losses if loss.trains(1)],
            trains_student=False,
            trains_critic=True,
            steps=1,
            optim=self.recipe.optim.student,
            resets_optimizer=False,
            ends_stage=False,
            fresh_noise=self.recipe.samples.noise == "fresh",
            real_pictures=self.recipe.samples.real == "pictures",
        )

    def _joint(self, i: int) -> IterationSpec:
        recipe, refinement = self.recipe, self.refinement
        last = i + 1 == refinement.iterations
        trains_student = (i + 1) % recipe.optim.critic_updates == 0
        steps = refinement.steps(i, generator(recipe.run.seed, "steps", i))
        return IterationSpec(
            phase=refinement.stage(i),
            losses=[loss.at(i) for loss in self.losses if loss.trains(steps)],
            trains_student=trains_student,
            trains_critic=True,
            steps=steps,
            optim=recipe.optim.student.at(i / refinement.iterations),
            # At the student's first step of the game, which critic updates may precede.
            resets_optimizer=i + 1 == recipe.optim.critic_updates,
            ends_stage=last or refinement.stage(i) != refinement.stage(i + 1),
            fresh_noise=recipe.samples.noise == "fresh",
            real_pictures=recipe.samples.real == "pictures",
            alternates=trains_student and recipe.optim.updates == "alternating",
        )

    def first_joint_iteration(self) -> int:
        """The first iteration in which both players train, of one step where there is such a one:
        what a plan counts and a benchmark times.

        Where gradients reach several steps, it is one in which they reach most of them.
        """
        most = self.recipe.student.gradient_steps
        if most > 1:
            return self._deepest(most)
        longer: int | None = None
        for i in range(self.start, min(len(self), self.start + 1000)):
            spec = self.spec(i)
            if spec.trains_student and spec.steps == 1:
                return i
            if spec.trains_student and longer is None:
                longer = i
        return longer or 0

    def _deepest(self, most: int) -> int:
        """The first iteration whose gradient reaches most steps, at most `most`; looked for all
        over the run, since long roll-outs are in its last stages."""
        best, depth, every = 0, 0, self.recipe.optim.critic_updates
        for i in range(self.start + every - 1, len(self), every * (1 + len(self) // 2000)):
            reached = min(self.spec(i).steps, most)
            if reached > depth:
                best, depth = i, reached
        return best
