"""When what happens: student warm-up, critic warm-up, then the refinement's stages.

A turn is a pure function of the iteration's number, so a resumed run needs no state for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.contracts import Loss, Refinement
from distillkit.randomness import generator
from distillkit.recipe.schema import AdamW, Recipe

STUDENT_WARMUP = "student warm-up"
CRITIC_WARMUP = "critic warm-up"

Terms = list[tuple[float, Loss]]
"""Losses with their weights."""


@dataclass(frozen=True)
class Turn:
    """What one iteration does."""

    phase: str
    terms: Terms
    trains_student: bool
    trains_critic: bool
    steps: int
    """Length of the student's roll-out."""
    optim: AdamW
    """The student's step size, moments and clipping in this phase."""
    fresh: bool
    """Whether the student's optimizer starts anew with this turn."""
    ends_stage: bool
    """Whether a snapshot of the student is due after this turn."""
    fresh_noise: bool = False
    """Whether the student starts from noise of its own, and not from the teacher's."""


@dataclass(frozen=True)
class Timeline:
    """The phases of a run, end to end."""

    recipe: Recipe
    refinement: Refinement
    losses: Terms
    warmup_losses: Terms

    @property
    def start(self) -> int:
        """First iteration in which the players meet."""
        return self.recipe.warmup.student + self.recipe.warmup.critic

    def __len__(self) -> int:
        return self.start + self.refinement.iterations

    def turn(self, iteration: int) -> Turn:
        """What iteration `iteration` (from 0) does."""
        recipe, warmup = self.recipe, self.recipe.warmup
        alone = recipe.optim.warmup or recipe.optim.student
        if iteration < warmup.student:
            return Turn(
                phase=STUDENT_WARMUP,
                terms=self.warmup_losses,
                trains_student=True,
                trains_critic=False,
                steps=1,
                optim=alone.at(iteration / warmup.student),
                fresh=iteration == 0,
                ends_stage=False,
            )
        fresh_noise = recipe.samples.noise == "fresh"
        if iteration < self.start:
            return Turn(
                phase=CRITIC_WARMUP,
                terms=self.losses,
                trains_student=False,
                trains_critic=True,
                steps=1,
                fresh_noise=fresh_noise,
                optim=recipe.optim.student,
                fresh=False,
                ends_stage=False,
            )
        i = iteration - self.start
        return Turn(
            phase=self.refinement.stage(i),
            terms=self.losses,
            trains_student=(i + 1) % recipe.optim.critic_updates == 0,
            trains_critic=True,
            steps=self.refinement.steps(i, generator(recipe.run.seed, "steps", i)),
            fresh_noise=fresh_noise,
            optim=recipe.optim.student.at(i / self.refinement.iterations),
            fresh=i == 0,
            ends_stage=self._ends_stage(i),
        )

    def _ends_stage(self, i: int) -> bool:
        """Whether the refinement's iteration `i` is the last of its stage."""
        last = i + 1 == self.refinement.iterations
        return last or self.refinement.stage(i) != self.refinement.stage(i + 1)
