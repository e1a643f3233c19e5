"""Pictures in one to four steps from a student: of a run, finished or not, or of a published model.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from distillkit.atomic import save_tensors
from distillkit.configs import LEVELS
from distillkit.contracts import Refinement, Teacher
from distillkit.errors import UserError, did_you_mean
from distillkit.exchange import agreed_shift, shift_of
from distillkit.randomness import noise
from distillkit.recipe.load import load_models
from distillkit.recipe.schema import ModelRecipe
from distillkit.registry.entry_points import installed
from distillkit.registry.layouts import choose_layout, installed_layouts
from distillkit.runs.checkpoint import Checkpoints
from distillkit.runs.folder import RunFolder
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_part, freeze
from distillkit.training.models.student import MAX_STEPS, Student
from distillkit.training.schedule import CRITIC_WARMUP, STUDENT_WARMUP

if TYPE_CHECKING:
    from distillkit.configs import Sampler
    from distillkit.contracts import StudentNetwork
    from distillkit.exchange import Layout

Tell = Callable[[str], None]
"""Gets a message to the user."""
DECODED = 32
"""Latents decoded at once: their maps stay in a CPU's cache, which takes less than half the time of
256, and the pictures are the same."""


@torch.no_grad()
def generate(student: Student, samples: TeacherSamples, ids: Sequence[int], steps: int) -> Tensor:
    """The student's latents (B, C, H, W) for samples `ids`.

    A picture depends on its prompt, its number and `samples.order.seed`: batches do not change it.
    """
    x_T_BCHW, renoise_SBCHW = draw_noise(samples, ids, steps)
    return student.rollout(x_T_BCHW, samples.conditions(ids), steps, renoise_SBCHW)


def draw_noise(samples: TeacherSamples, ids: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
    """x_T (B, C, H, W) of samples `ids`, and the noise of their re-noisings (S, B, C, H, W).

    Every number is keyed by the seed and the picture's number (`distillkit.randomness`): a seed
    gives another picture than the same seed of a `torch.Generator`, as diffusers uses it.
    """
    x_T_BCHW = samples.x_T(ids)
    shape = (steps - 1, *x_T_BCHW.shape[1:])
    renoise_SBCHW = noise(shape, samples.order.seed, "renoise", ids).transpose(0, 1)
    return x_T_BCHW, renoise_SBCHW.to(samples.device)


@torch.no_grad()
def decode(teacher: Teacher, x_0_BCHW: Tensor) -> Tensor:
    """Pictures (B, 3, height, width) in [0, 1], float32 on the CPU."""
    parts = x_0_BCHW.split(DECODED)
    return torch.cat([teacher.decode(part).float().clamp(0, 1).cpu() for part in parts])


def batches(count: int, batch: int) -> list[range]:
    """0 to `count` in runs of at most `batch`."""
    return [range(first, min(first + batch, count)) for first in range(0, count, batch)]


def load_student(
    run: Path, snapshot: str | None = None, tell: Tell = lambda _: None
) -> tuple[ModelRecipe, Parts, Student]:
    """Teacher and student of a run folder, with the weights of a snapshot, or the newest there are.

    Of the recipe, teacher, student and loop alone are read: what trained the student may have left
    this machine. `tell` gets a sentence where the weights are not a finished run's. Raises
    `UserError` where there is no run, or no weights.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no recipe.yaml. Name the folder that "
            "`distillkit run` printed, or make one with it."
        )
    recipe = load_models(folder.recipe)
    file = weights_file(folder, snapshot, tell)
    teacher = build_part(recipe.teacher)
    freeze(teacher.modules())
    parts = Parts(teacher, build_part(recipe.student, teacher))
    parts.network.module.requires_grad_(False).eval()
    student = Student.of(parts.network, parts.teacher.schedule, recipe.student)
    student.load_snapshot(file)
    return recipe, parts, student


def stage_names(refinement: Refinement) -> list[str]:
    """The refinement's stages, which name the snapshots, in the order of training."""
    return list(dict.fromkeys(refinement.stage(i) for i in range(refinement.iterations)))


def weights_file(folder: RunFolder, wanted: str | None, tell: Tell) -> Path:
    """The file of the snapshot of that name; without a name that of the newest weights: the latest
    snapshot, or a later checkpoint of a run that is not finished."""
    there = folder.snapshots()
    if wanted is not None and wanted not in there:
        raise UserError(
            f"{folder.path} has no snapshot '{wanted}';{did_you_mean(wanted, there)} "
            f"snapshots: {', '.join(there) or 'none'}"
        )
    if wanted is not None:
        return folder.snapshot(wanted)
    newest, age = _newest_snapshot(folder)
    if folder.student.is_dir() and newest is not None:
        return folder.snapshot(newest)
    saved = Checkpoints(folder.checkpoints, 1, tell).latest_weights()
    if saved is not None and saved[0] > age:
        tell(f"{folder.path} is not finished: these are its weights after iteration {saved[0]}")
        return saved[1]
    if newest is None:
        raise UserError(
            f"{folder.path} has no weights of the student yet: the first are saved with the first "
            "checkpoint, or when its warm-up ends. Let the run continue (`distillkit run ... "
            "--resume`)."
        )
    tell(f"{folder.path} is not finished: this is its snapshot '{newest}'")
    return folder.snapshot(newest)


def _newest_snapshot(folder: RunFolder) -> tuple[str | None, float]:
    """The latest snapshot's name, and the iterations that were done when it was written."""
    there, ends = folder.snapshots(), folder.phase_ends()
    if not there:
        return None, -1
    # "start" is written between the warm-ups and the first joint iteration.
    ends["start"] = max(ends.pop(STUDENT_WARMUP, 0), ends.pop(CRITIC_WARMUP, 0))
    if any(name not in ends for name in there):
        return there[-1], math.inf  # the log does not go as far, or was not copied along
    newest = max(there, key=ends.__getitem__)
    return newest, ends[newest]


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
    save_noise: Path | None = None,
    tell: Tell = lambda _: None,
) -> Tensor:
    """`count` pictures (B, 3, height, width) in [0, 1] of a prompt, in 1 to 4 steps.

    `source`: a run folder, of which `snapshot` names an earlier student; or a model that is no run,
    for which see `open_model` (`weights`, `shift`, `family`). `save_noise`: a safetensors file to
    write the noise to: `x_T`, and with several steps `renoise`, as `draw_noise` gives them. `tell`
    gets a message where a run is not finished. Raises `UserError`.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"--steps {steps}: a student draws in 1 to {MAX_STEPS} steps")
    if count < 1:
        raise UserError(f"--count {count}: at least 1 picture")
    if is_model(source, weights, shift):
        if snapshot is not None:
            raise UserError(f"--snapshot {snapshot}: {source} is no run, and has no snapshots")
        (teacher, student), batch = open_model(str(source), weights, shift, family), 1
    else:
        check_family(source, family)
        recipe, parts, student = load_student(Path(source), snapshot, tell)
        teacher, batch = parts.teacher, recipe.run.batch
        student.network.module.to(_device())
    teacher.to(_device())
    samples = TeacherSamples(teacher, SampleOrder([prompt], seed), _device())
    if save_noise is not None:
        x_T_BCHW, renoise_SBCHW = draw_noise(samples, range(count), steps)
        drawn = {"x_T": x_T_BCHW} | ({"renoise": renoise_SBCHW} if steps > 1 else {})
        save_tensors(save_noise, drawn, {"seed": str(seed)})
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


def check_family(source: str | Path, family: str | None) -> None:
    """`UserError` where a run is given a family, which its recipe has."""
    if family is not None and RunFolder(Path(source)).recipe.is_file():
        raise UserError(f"--family {family}: {source} is a run, whose recipe says it: leave it out")


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
    layout = choose_layout(layouts, family, model, weights)
    teacher = layout.open(model, weights, dtype)
    freeze(teacher.modules())
    network = cast("StudentNetwork", teacher.denoiser)  # it is run here, and never published
    return teacher, Student(network, teacher.schedule, shift, *_published_grid(layout, Path(model)))


def _published_grid(layout: Layout, folder: Path) -> tuple[Sequence[float], Sampler]:
    """The noise levels of a published student's roll-outs, and how it goes from one to the next."""
    own_levels = getattr(layout, "published_levels", None)
    own_sampler = getattr(layout, "published_sampler", None)
    levels: Sequence[float] = LEVELS if own_levels is None else own_levels(folder)
    sampler: Sampler = "renoise" if own_sampler is None else own_sampler(folder)
    return levels, sampler


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
