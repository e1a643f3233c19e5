"""Stages few-step, few-step-32: one-step weights, taught the lower levels of a roll-out as well.

One-step weights know the first level of the student's grid alone, and what they say of the others
gets worse as they train. Here each update has pictures of every level: at the first, regression on
the teacher's samples goes on; at each lower one x_0-hat is drawn to where the teacher's sampling
ODE ends from that x_t. That is the consistency function (Song et al. 2023, section 3), regressed
directly, as Luhman & Luhman (2021) do from x_T alone. Half of these x_t are noised samples of the
teacher, half are noised x_0-hat of the student's own first step, as in a roll-out.

Legend: B batch, C channels, H, W latent cells, R pictures of one lower level.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from distillkit import api
from distillkit.atomic import appearing
from distillkit.contracts import Teacher
from distillkit.values import Condition
from distillkit_nitrofusion.losses.regression import pseudo_huber
from distillkit_shapes.train.data import log, save_atomic
from distillkit_shapes.train.students.one_step import PACKAGE

SEED = 5
GUIDANCE = 2.0
"""Of the teacher, as in the recipes."""
BATCH, ROWS = 32, 4
"""Pictures of the first level in an update, and of each lower one."""
ODE_LEVELS = tuple(999 - 125 * i for i in range(8))
"""Where the ODE's solver visits x_t: the eight timesteps of the recipes' teacher."""
distance = partial(pseudo_huber, c=0.00054)
"""The recipe's `regression`."""
Visits = Sequence[tuple[float, float]]
"""Noise levels, and the timestep at which the network is run for each."""


@dataclass(frozen=True)
class Plan:
    """Which weights are made of which, and by whose samples."""

    name: str
    """The package's folder of the weights that are made."""
    start: str
    """That of the weights which they begin from."""
    cycles: Sequence[tuple[int, float]]
    """Updates of each cycle of the learning rate, and its peak there."""
    steps: int
    """Of the teacher's sampler."""
    samples: str
    """The package's folder of its samples."""

    @property
    def updates(self) -> int:
        return sum(updates for updates, _ in self.cycles)

    def rate(self, done: int) -> float:
        """The learning rate after `done` updates: a cosine in each cycle, to a fiftieth."""
        for updates, peak in self.cycles:
            if done < updates:
                return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done / updates)))
            done -= updates
        raise ValueError("the plan has ended")


FEW_STEP = Plan("few_step", "one_step_plateau", ((1800, 4e-4),), 8, "samples")
FEW_STEP_32 = Plan(
    "few_step_32", "few_step", ((2400, 4e-4), (1800, 2e-4), (2400, 1e-4)), 32, "samples_32"
)
"""A teacher of 32 steps draws fresh noise 31 times: more is open, given x_T, and regression blurs
more."""


@dataclass
class Course:
    """The student on its way, and all that an update reads."""

    teacher: Teacher
    state: Any
    """Of the trainer of `shapes_one_step`: its student, EMA and samples."""
    done: int = 0
    rng: Generator = field(default_factory=lambda: Generator().manual_seed(SEED))

    def __post_init__(self) -> None:
        self.student, self.samples = self.state.student, self.state.samples
        self.ema = self.state.ema
        weights = self.student.network.module.parameters()
        self.optim = torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.99), weight_decay=0)

    def save(self, path: Path) -> None:
        """Write all that a resumed course needs, at once."""
        state = {"network": self.student.network.module.state_dict(), "ema": self.ema.weights}
        state |= {"optim": self.optim.state_dict(), "rng": self.rng.get_state()}
        save_atomic(state | {"done": self.done, "ema_updates": self.ema.updates}, path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path)
        self.student.network.module.load_state_dict(state["network"])
        self.optim.load_state_dict(state["optim"])
        for name, average in self.ema.weights.items():
            average.copy_(state["ema"][name])
        self.ema.updates.copy_(state["ema_updates"])
        self.rng.set_state(state["rng"])
        self.done = state["done"]


def train_few_step(
    work: Path, plan: Plan = FEW_STEP, folder: Path | None = None, updates: int | None = None
) -> None:
    """Train, or go on where a stopped run was saved in `work`; replace the shipped weights."""
    course, saved = make_course(work, plan), work / f"{plan.name}.pt"
    updates = updates or plan.updates
    if saved.exists():
        course.load(saved)
    losses: list[list[float]] = []
    while course.done < updates:
        losses.append(update(course, plan.rate(course.done)))
        if course.done % 100 == 0:
            means = torch.tensor(losses).mean(0).tolist()
            log(f"{plan.name} update {course.done} losses {[round(mean, 4) for mean in means]}")
            losses.clear()
            course.save(saved)
    publish(course, folder or PACKAGE / plan.name)


def make_course(work: Path, plan: Plan = FEW_STEP) -> Course:
    """The recipe `shapes_one_step` from the plan's weights: its student, teacher and samples."""
    changes = {
        "student.start": f"package:distillkit_shapes/{plan.start}",
        "teacher.steps": plan.steps,
        "samples.cache": f"package:distillkit_shapes/{plan.samples}",
        "run.seed": SEED,
        "run.threads": 1,
    }
    recipe = api.load_recipe("shapes_one_step", [f"{k}={v}" for k, v in changes.items()])
    trainer = api.prepare(recipe, work / plan.name)
    trainer.fill_caches()
    return Course(trainer.parts.teacher, trainer.state)


def update(course: Course, rate: float) -> list[float]:
    """One update of the student; returns the mean loss at each level of its grid."""
    student = course.student
    positions = range(course.done * BATCH, (course.done + 1) * BATCH)
    ids = [course.samples.order.sample_id(position) for position in positions]
    cond, x_T_BCHW = course.samples.conditions(ids), course.samples.x_T(ids)
    real_BCHW = course.samples.at(positions, x_T_BCHW, cond).float()
    (_, run_at), *lower = student.grid.visits(len(student.levels))
    fake_BCHW = student.x_0(x_T_BCHW, run_at, cond)
    losses = [distance(real_BCHW=real_BCHW, fake_BCHW=fake_BCHW)]
    losses += lower_levels(course, lower, real_BCHW, fake_BCHW.detach(), cond)
    mean = (BATCH * losses[0] + ROWS * sum(losses[1:])) / (BATCH + ROWS * len(lower))

    for group in course.optim.param_groups:
        group["lr"] = rate
    course.optim.zero_grad()
    mean.backward()
    torch.nn.utils.clip_grad_norm_(student.network.module.parameters(), 1.0)
    course.optim.step()
    course.ema.update()
    course.done += 1
    return [float(loss.detach()) for loss in losses]


def lower_levels(
    course: Course, visits: Visits, real_BCHW: Tensor, fake_BCHW: Tensor, cond: Condition
) -> list[Tensor]:
    """The loss of each lower level, a scalar, on pictures of its own."""
    student, schedule = course.student, course.teacher.schedule
    x_t, targets = [], []
    for place, (level, _) in enumerate(visits):
        rows = slice(place * ROWS, (place + 1) * ROWS)
        x_0_RCHW = torch.cat([real_BCHW[rows][: ROWS // 2], fake_BCHW[rows][ROWS // 2 :]])
        eps_RCHW = torch.randn(x_0_RCHW.shape, generator=course.rng)
        x_t.append(schedule.add(x_0_RCHW, eps_RCHW, torch.full((ROWS,), level)))
        targets.append(ode_solution(course.teacher, x_t[-1], level, cond[rows]))
    x_BCHW, seen = torch.cat(x_t), cond[: ROWS * len(visits)]
    t_B = torch.tensor([run_at for _, run_at in visits for _ in range(ROWS)])
    output_BCHW = student.network(x_BCHW, t_B, seen)
    x_0_BCHW = schedule.to_x_0(output_BCHW, x_BCHW, t_B, student.network.prediction)
    pairs = zip(targets, x_0_BCHW.split(ROWS), strict=True)
    return [distance(real_BCHW=target, fake_BCHW=x_0_RCHW) for target, x_0_RCHW in pairs]


@torch.no_grad()
def ode_solution(teacher: Teacher, x_t_BCHW: Tensor, level: float, cond: Condition) -> Tensor:
    """x_0 (B, C, H, W) where the teacher's guided sampling ODE ends from x_t, by DDIM's steps."""
    schedule, levels = teacher.schedule, [t for t in ODE_LEVELS if t <= level]
    null = teacher.null(len(x_t_BCHW))
    assert null is not None
    both = Condition.join([cond, null])
    x_0_BCHW = x_t_BCHW
    for t, below in zip(levels, [*levels[1:], None], strict=True):
        t_B = torch.full((len(x_t_BCHW),), t)
        guess_BCHW = _guess(teacher, torch.cat([x_t_BCHW] * 2), torch.cat([t_B] * 2), both)
        x_0_BCHW, without_BCHW = guess_BCHW.chunk(2)
        x_0_BCHW = without_BCHW + GUIDANCE * (x_0_BCHW - without_BCHW)
        if below is not None:
            eps_BCHW = schedule.to_eps(x_0_BCHW, x_t_BCHW, t_B)
            x_t_BCHW = schedule.add(x_0_BCHW, eps_BCHW, torch.full_like(t_B, below))
    return x_0_BCHW


def _guess(teacher: Teacher, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
    output_BCHW = teacher.denoiser(x_t_BCHW, t_B, cond)
    return teacher.schedule.to_x_0(output_BCHW, x_t_BCHW, t_B, teacher.denoiser.prediction)


def publish(course: Course, folder: Path) -> None:
    """The averaged weights as a UNet's folder, in float16, swapped in whole."""
    network = course.student.network
    with appearing(folder) as temporary, course.ema.applied_to(network.module):
        network.publish(temporary / "pipeline", course.student.timestep_shift)
        unet = temporary / "pipeline" / "unet"
        for file in unet.iterdir():
            shutil.move(file, temporary / file.name)
        shutil.rmtree(temporary / "pipeline")
