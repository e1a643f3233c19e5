"""Batches that a loss is shown: of a few pictures, judged by heads of the examples' pool.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from distillkit.contracts import Teacher
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.testing.findings import PROMPTS, noise, seeded
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.models.critic import Critic
from distillkit.training.models.student import Student
from distillkit.values import JudgedView, Panel

COUNT = len(PROMPTS)


class Batches:
    """Makes batches of the same pictures, with graphs of their own."""

    def __init__(self, taught_by: Teacher) -> None:
        self.teacher = taught_by
        self.network = ExampleStudentConfig().build(taught_by)
        self.critic = self._critic("")
        self.panel = self.critic.pool.draw(COUNT, seeded("panel"))

    @property
    def drawn_heads(self) -> list[nn.Module]:
        """The heads that judge."""
        return [self.critic.pool.heads[head] for head in self.panel.head_ids]

    def make(
        self,
        pictures: Sequence[int] = range(COUNT),
        panels: Sequence[tuple[Critic, Panel]] | None = None,
    ) -> LazyTrainBatch:
        """A batch of pictures by number, each as often as it is named; `panels`: other critics."""
        teacher, student = self.teacher, Student(self.network, self.teacher.schedule, 500)
        x_T_BCHW = noise((COUNT, *teacher.latent_shape), "x_T")[list(pictures)]
        cond = teacher.encode([PROMPTS[picture] for picture in pictures])
        generators = [seeded(picture) for picture in pictures]
        return LazyTrainBatch(
            iteration=0,
            x_T_BCHW=x_T_BCHW,
            cond=cond,
            null=teacher.null(len(pictures)),
            make_real=lambda: teacher.sample(x_T_BCHW, cond, generators).detach(),
            make_fake=lambda: student.rollout(x_T_BCHW, cond, 1, x_T_BCHW[:0, None]),
            steps=1,
            positions=pictures,
            seed=0,
            panels=[(self.critic, self._of(pictures))] if panels is None else panels,
        )

    def of_two_critics(self) -> LazyTrainBatch:
        """One whose second critic judges the first and the last picture alone."""
        some = tuple(
            JudgedView(judged.view, judged.t_B[[0, -1]], judged.heads, (0, COUNT - 1))
            for judged in self.panel.views
        )
        both = [(self._critic("one"), self.panel), (self._critic("two"), Panel(some))]
        return self.make(panels=both)

    def _of(self, pictures: Sequence[int]) -> Panel:
        """The panel for these pictures."""
        return Panel(
            tuple(
                JudgedView(judged.view, judged.t_B[list(pictures)], judged.heads)
                for judged in self.panel.views
            )
        )

    def _critic(self, name: str) -> Critic:
        backbone = ExampleBackboneConfig().build(self.teacher)
        pool = ExamplePoolConfig().build(backbone.channels, 0)
        return Critic(backbone, pool, None, self.teacher.schedule, seed=0, name=name)
