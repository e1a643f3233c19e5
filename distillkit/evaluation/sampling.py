"""Pictures in one to four steps from a student: of a run, finished or not, or of a published model.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from distillkit.contracts import Refinement, Teacher
from distillkit.errors import UserError, did_you_mean
from distillkit.exchange import agreed_shift, shift_of
from distillkit.randomness import noise
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.registry.layouts import choose_layout, installed_layouts
from distillkit.runs.folder import RunFolder
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_models, build_part, freeze
from distillkit.training.models.student import MAX_STEPS, Student

if TYPE_CHECKING:
    from distillkit.contracts import StudentNetwork


@torch.no_grad()
def generate(student: Student, samples: TeacherSamples, ids: Sequence[int], steps: int) -> Tensor:
    """The student's latents (B, C, H, W) for samples `ids`.

    A picture depends on its prompt, its number and `samples.order.seed`: batches do not change it.
    """
    x_T_BCHW = samples.x_T(ids)
    shape = (steps - 1, *x_T_BCHW.shape[1:])
    renoise_SBCHW = noise(shape, samples.order.seed, "renoise", ids).transpose(0, 1)
    return student.rollout(
        x_T_BCHW, samples.conditions(ids), steps, renoise_SBCHW.to(samples.device)
    )


@torch.no_grad()
def decode(teacher: Teacher, x_0_BCHW: Tensor) -> Tensor:
    """Pictures (B, 3, height, width) in [0, 1], float32 on the CPU."""
    return teacher.decode(x_0_BCHW).float().clamp(0, 1).cpu()


def batches(count: int, batch: int) -> list[range]:
    """0 to `count` in runs of at most `batch`."""
    return [range(first, min(first + batch, count)) for first in range(0, count, batch)]


def load_student(run: Path, snapshot: str | None = None) -> tuple[Recipe, Parts, Student]:
    """The recipe, teacher and student of a run folder, with the weights of a snapshot.

    Without a name: the latest snapshot. Critics and prompts are not built. Raises `UserError` where
    there is no run, or no such snapshot.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no recipe.yaml. Name the folder that "
            "`distillkit run` printed, or make one with it."
        )
    recipe = load_recipe(folder.recipe).recipe
    name = _choose(folder, stage_names(build_part(recipe.refinement)), snapshot)
    parts = build_models(recipe)
    parts.network.module.requires_grad_(False).eval()
    student = Student(parts.network, parts.teacher.schedule, recipe.student.timestep_shift)
    student.load_snapshot(folder.snapshot(name))
    return recipe, parts, student


def stage_names(refinement: Refinement) -> list[str]:
    """The refinement's stages, which name the snapshots, in the order of training."""
    return list(dict.fromkeys(refinement.stage(i) for i in range(refinement.iterations)))


def _choose(folder: RunFolder, stages: Sequence[str], wanted: str | None) -> str:
    """The snapshot of that name, or the latest. Stages tell the order (a copy has other dates)."""
    there = folder.snapshots()
    if not there:
        raise UserError(
            f"{folder.path} has no snapshot of the student yet: the first is written after the "
            "warm-up, before critics and student train together. Let the run continue "
            "(`distillkit run ... --resume`)."
        )
    if wanted is None:
        return next((name for name in reversed(stages) if name in there), there[-1])
    if wanted not in there:
        raise UserError(
            f"{folder.path} has no snapshot '{wanted}';{did_you_mean(wanted, there)} "
            f"snapshots: {', '.join(there)}"
        )
    return wanted


def sample(
    source: str | Path,
    prompt: str,
    *,
    steps: int = 1,
    seed: int = 0,
    count: int = 1,
    snapshot: str | None = None,
    weights: str | None = None,
    shift: int | None = None,
    family: str | None = None,
) -> Tensor:
    """`count` pictures (B, 3, height, width) in [0, 1] of a prompt, in 1 to 4 steps.

    `source`: a run folder, of which `snapshot` names an earlier student; or a model that is no run,
    for which see `open_model` (`weights`, `shift`, `family`). Raises `UserError`.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"--steps {steps}: a student draws in 1 to {MAX_STEPS} steps")
    if count < 1:
        raise UserError(f"--count {count}: at least 1 picture")
    if is_model(source, weights, shift):
        (teacher, student), batch = open_model(str(source), weights, shift, family), 1
    else:
        recipe, parts, student = load_student(Path(source), snapshot)
        teacher, batch = parts.teacher, recipe.run.batch
        student.network.module.to(_device())
    teacher.to(_device())
    samples = TeacherSamples(teacher, SampleOrder([prompt], seed), _device())
    return torch.cat(
        [decode(teacher, generate(student, samples, ids, steps)) for ids in batches(count, batch)]
    )


def is_model(source: str | Path, weights: str | None, shift: int | None) -> bool:
    """Whether `source` is a model and no run: other weights or a shift are given, or it is a
    published folder that states its shift."""
    if weights is not None or shift is not None:
        return True
    layouts = installed_layouts(installed().registry).values()
    is_run = RunFolder(Path(source)).recipe.is_file()
    return not is_run and shift_of(Path(source), layouts) is not None


def open_model(
    model: str, weights: str | None, shift: int | None, family: str | None = None
) -> tuple[Teacher, Student]:
    """A model that was distilled elsewhere, run as a student of ours.

    `model`: what the family's teacher takes as its model. `weights`: a file that replaces its
    denoiser's. `shift`: their timestep shift, where neither states it. `family`: an installed
    layout's name, where the files do not tell.
    """
    if RunFolder(Path(model)).recipe.is_file():
        raise UserError(f"{model} is a run, which has its own weights and shift: leave both out")
    if shift is not None and not 1 <= shift <= 1000:
        raise UserError(f"--shift {shift}: 1 to 1000, as published with the weights")
    layouts = installed_layouts(installed().registry)
    shift = agreed_shift(Path(weights or model), shift, layouts.values())
    if shift is None:
        raise UserError(
            f"--weights {weights}: the file does not state its timestep shift, without which the "
            "weights mean nothing; give the one they were published with, or --shift 1000 for none"
        )
    dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    teacher = choose_layout(layouts, family, model, weights).open(model, weights, dtype)
    freeze(teacher.modules())
    network = cast("StudentNetwork", teacher.denoiser)  # it is run here, and never published
    return teacher, Student(network, teacher.schedule, shift)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
