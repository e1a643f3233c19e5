"""When what trains: student warm-up, critic warm-up, then the refinement's stages.

An iteration's spec is a pure function of its number, so a resumed run needs no state for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.contracts import Loss, Refinement
from distillkit.randomness import generator
from distillkit.recipe.schema import AdamWConfig, Recipe

STUDENT_WARMUP = "student warm-up"
CRITIC_WARMUP = "critic warm-up"

WeightedLosses = list[tuple[float, Loss]]
"""Losses with their weights."""


@dataclass(frozen=True)
class IterationSpec:
    """What one iteration does."""

    phase: str
    """Name of the warm-up, or of the refinement's stage."""
    losses: WeightedLosses
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


@dataclass(frozen=True)
class TrainSchedule:
    """The phases of a run, end to end."""

    recipe: Recipe
    refinement: Refinement
    losses: WeightedLosses
    warmup_losses: WeightedLosses

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
            losses=self.losses,
            trains_student=False,
            trains_critic=True,
            steps=1,
            optim=self.recipe.optim.student,
            resets_optimizer=False,
            ends_stage=False,
            fresh_noise=self.recipe.samples.noise == "fresh",
        )

    def _joint(self, i: int) -> IterationSpec:
        recipe, refinement = self.recipe, self.refinement
        last = i + 1 == refinement.iterations
        return IterationSpec(
            phase=refinement.stage(i),
            losses=self.losses,
            trains_student=(i + 1) % recipe.optim.critic_updates == 0,
            trains_critic=True,
            steps=refinement.steps(i, generator(recipe.run.seed, "steps", i)),
            optim=recipe.optim.student.at(i / refinement.iterations),
            resets_optimizer=i == 0,
            ends_stage=last or refinement.stage(i) != refinement.stage(i + 1),
            fresh_noise=recipe.samples.noise == "fresh",
        )

    def first_joint_iteration(self) -> int:
        """The first iteration in which both players train, of one step where there is such a one:
        what a plan counts and a benchmark times."""
        longer: int | None = None
        for i in range(self.start, min(len(self), self.start + 1000)):
            spec = self.spec(i)
            if spec.trains_student and spec.steps == 1:
                return i
            if spec.trains_student and longer is None:
                longer = i
        return longer or 0
