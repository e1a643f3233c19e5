"""Pictures in one to four steps from a student: of a run that goes on, or of a finished one.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from distillkit.contracts import Refinement, Teacher
from distillkit.errors import UserError, did_you_mean
from distillkit.randomness import noise
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.runs.folder import RunFolder
from distillkit.samples.order import Stream
from distillkit.samples.pairs import Pairs
from distillkit.training.build import Parts, build_part, freeze
from distillkit.training.student import MAX_STEPS, Student, load_weights
from distillkit.transfer.transfer import agreed_shift, shift_of

if TYPE_CHECKING:
    from distillkit.configs import TeacherConfig
    from distillkit.contracts import StudentNetwork


@torch.no_grad()
def generate(student: Student, pairs: Pairs, ids: Sequence[int], steps: int) -> Tensor:
    """The student's latents (B, C, H, W) for samples `ids`.

    A picture depends on its prompt, its number and `pairs.stream.seed`: batches do not change it.
    """
    x_T_BCHW = pairs.x_T(ids)
    shape = (steps - 1, *x_T_BCHW.shape[1:])
    renoise_SBCHW = noise(shape, pairs.stream.seed, "renoise", ids).transpose(0, 1)
    return student.rollout(x_T_BCHW, pairs.conditions(ids), steps, renoise_SBCHW.to(pairs.device))


@torch.no_grad()
def decode(teacher: Teacher, x_0_BCHW: Tensor) -> Tensor:
    """Pictures (B, 3, height, width) in [0, 1], float32 on the CPU."""
    return teacher.decode(x_0_BCHW).float().clamp(0, 1).cpu()


def batches(count: int, batch: int) -> list[range]:
    """0 to `count` in runs of at most `batch`."""
    return [range(first, min(first + batch, count)) for first in range(0, count, batch)]


def load_student(run: Path, snapshot: str | None = None) -> tuple[Recipe, Parts, Student]:
    """The recipe, teacher and student of a run folder, with the weights of a snapshot.

    Without a name: the latest snapshot. The parts hold teacher and network alone; critics and
    prompts are not built. Raises `UserError` where there is no run, or no such snapshot.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no recipe.yaml. Name the folder that "
            "`distillkit run` printed, or make one with it."
        )
    recipe = load_recipe(folder.recipe).recipe
    name = _choose(folder, stage_names(build_part(recipe.refinement)), snapshot)
    teacher = build_part(recipe.teacher)
    freeze(teacher.modules())
    network = build_part(recipe.student, teacher)
    network.module.requires_grad_(False).eval()
    student = Student(network, teacher.schedule, recipe.student.timestep_shift)
    wear(student, folder.snapshot(name))
    return recipe, Parts(teacher, network, []), student


def stage_names(refinement: Refinement) -> list[str]:
    """The refinement's stages, which name the snapshots, in the order of training."""
    return list(dict.fromkeys(refinement.stage(i) for i in range(refinement.iterations)))


def _choose(folder: RunFolder, stages: Sequence[str], wanted: str | None) -> str:
    """The snapshot of that name, or the latest. Stages tell the order (a copy has other dates)."""
    there = folder.snapshots()
    if not there:
        raise UserError(
            f"{folder.path} has no snapshot of the student yet: the first is written after the "
            "warm-up, before the critics and the student meet. Let the run go on "
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


def wear(student: Student, snapshot: Path) -> None:
    """Give the student the weights of a snapshot."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        load_weights(_bare(student), load_file(snapshot))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{snapshot} can't be read: {error}") from None
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{snapshot} holds the weights of another network than the recipe's student: {error}"
        ) from None


def _bare(student: Student) -> nn.Module:
    """The network without the wrapper for several processes."""
    module = student.network.module
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


@contextmanager
def keeping_weights(student: Student) -> Iterator[None]:
    """Inside, the student may wear what it likes; afterwards it has its own weights again."""
    module = _bare(student)
    own = {name: p.detach().clone() for name, p in module.named_parameters()}
    try:
        yield
    finally:
        load_weights(module, own)


def sample(
    source: str,
    prompt: str,
    steps: int,
    seed: int,
    count: int = 1,
    snapshot: str | None = None,
    unet: str | None = None,
    shift: int | None = None,
) -> Tensor:
    """`count` pictures (B, 3, height, width) of a prompt from a run's student.

    `source` may also be a model that is no run; see `open_model` for it, `unet` and `shift`.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"--steps {steps}: a student draws in 1 to {MAX_STEPS} steps")
    if count < 1:
        raise UserError(f"--count {count}: at least 1 picture")
    published = not RunFolder(Path(source)).recipe.is_file() and shift_of(Path(source)) is not None
    if unet is None and shift is None and not published:
        recipe, parts, student = load_student(Path(source), snapshot)
        teacher, batch = parts.teacher, recipe.run.batch
        student.network.module.to(_device())
    else:
        (teacher, student), batch = open_model(source, unet, shift), 1
    teacher.to(_device())
    pairs = Pairs(teacher, Stream([prompt], seed), _device())
    return torch.cat(
        [decode(teacher, generate(student, pairs, ids, steps)) for ids in batches(count, batch)]
    )


def open_model(
    model: str, unet: str | None, shift: int | None, family: str = "sdxl"
) -> tuple[Teacher, Student]:
    """A model that was distilled elsewhere, such as NitroSD: run as a student of ours.

    `model`: what the family's teacher takes as its model. `unet`: weights that replace its
    denoiser's. `shift`: their timestep shift, where the file does not say it.
    """
    if RunFolder(Path(model)).recipe.is_file():
        raise UserError(f"{model} is a run, which has its own UNet and shift: leave both out")
    if shift is not None and not 1 <= shift <= 1000:
        raise UserError(f"--shift {shift}: 1 to 1000, such as 250 for NitroSD-Realism")
    shift = agreed_shift(Path(unet or model), shift)
    if shift is None:
        raise UserError(
            f"--unet {unet}: the file does not say its timestep shift, without which the weights "
            "mean nothing; give it: --shift 250 for NitroSD-Realism, 500 for Vibrant, 1000 for none"
        )
    precision = "bfloat16" if torch.cuda.is_available() else "float32"
    config = installed().registry.get("teacher", family).config
    fields = {"type": family, "model": model, "unet": unet, "dtype": precision}
    built: TeacherConfig = config.model_validate(fields)  # type: ignore[assignment]
    teacher = build_part(built)
    freeze(teacher.modules())
    network = cast("StudentNetwork", teacher.denoiser)  # it is run here, and never published
    return teacher, Student(network, teacher.schedule, shift)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
