"""Remarks on the recipe's own sections: what has no effect there, and losses without critics."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from distillkit.recipe.schema import Recipe
from distillkit.recipe.yaml12 import Path
from distillkit.remarks import Remark, without_effect


def section_remarks(recipe: Recipe) -> Iterator[tuple[Path, Remark]]:
    """Each with the place of the field that it is about."""
    for path, remark in (*_critics(recipe), *_trackers(recipe), *_unused(recipe)):
        yield (*path, *filter(None, [remark.field])), remark


def teacher_fields(recipe: Recipe) -> dict[str, Any]:
    """The teacher's fields that its latents depend on: its samples, and encoded pictures."""
    teacher = recipe.teacher
    return teacher.model_dump(mode="json", exclude={*teacher.same_result, *teacher.same_latents})


def _trackers(recipe: Recipe) -> Iterator[tuple[Path, Remark]]:
    for n, name in enumerate(recipe.run.trackers):
        modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(module.isidentifier() and find_spec(module) for module in modules):
            said = f"{name!r} is not installed, or accelerate does not know it"
            yield ("run", "trackers", str(n)), Remark(said)


def _critics(recipe: Recipe) -> Iterator[tuple[Path, Remark]]:
    """Losses that need critics where there are none, and critics that no loss trains."""
    for n, loss in enumerate(recipe.warmup.losses):
        if loss.uses_critics:
            said = f"{loss.name()} learns from critics, and the student warms up without them"
            yield ("warmup", "losses", str(n)), Remark(said)
        said = "in a warm-up, which has the whole weight at once and trains one step"
        for remark in without_effect(loss, said, "ramp", "steps"):
            yield ("warmup", "losses", str(n)), remark
    for place, losses in (
        (("losses",), recipe.losses),
        (("warmup", "losses"), recipe.warmup.losses),
    ):
        if losses and not any(loss.weight for loss in losses):
            yield place, Remark("every weight is 0, so that nothing would train")
    critics = recipe.all_critics()
    lengths = [critic.steps for critic in critics.values()]
    if recipe.warmup.critic and critics and not any(1 in steps or not steps for steps in lengths):
        said = "its roll-outs have one step, and no critic judges those; see `steps` of each"
        yield ("warmup", "critic"), Remark(said)
    if recipe.warmup.critic and not any(
        1 in loss.steps or not loss.steps for loss in recipe.losses
    ):
        said = "its roll-outs have one step, and no loss trains those; see `steps` of each"
        yield ("warmup", "critic"), Remark(said)
    for n, loss in enumerate(recipe.losses):
        if loss.uses_critics and not critics:
            yield ("losses", str(n)), Remark(f"{loss.name()} needs a `backbone` and a `pool`")
    if not all(loss.uses_critics is False for loss in recipe.losses):
        return
    yield from _critics_optimizers(recipe)
    if critics:
        place = ("pool",) if recipe.pool is not None else ("critics",)
        said = "no loss has a term for critics, so that heads are neither trained nor asked"
        yield place, Remark(said, is_error=False)
        if recipe.warmup.critic:
            said = "no loss has a term for critics: they would train on nothing"
            yield ("warmup", "critic"), Remark(said)


def _critics_optimizers(recipe: Recipe) -> Iterator[tuple[Path, Remark]]:
    """Where no loss has a term for critics; else it is known when losses are built."""
    why, every = "where no loss has a term for critics", recipe.optim.critic_updates
    for remark in without_effect(recipe.optim, why, "critic", "aux", "updates"):
        yield ("optim",), remark
    if every > 1:
        said = f"{every - 1} of {every} iterations train nothing {why}"
        yield ("optim",), Remark(said, "critic_updates", is_error=False)


def _unused(recipe: Recipe) -> Iterator[tuple[Path, Remark]]:
    samples, warmup, optim = recipe.samples, recipe.warmup, recipe.optim
    found = []
    has_cache = samples.cache or (samples.real_cache and samples.real == "pictures")
    if not has_cache:
        fields = ("dtype", "max_gb")
        found += [("samples", r) for r in without_effect(samples, "without a cache", *fields)]
    if not samples.cache:
        said = "without `cache`"
        found += [("samples", r) for r in without_effect(samples, said, "cache_prompt_embeds")]
    if samples.uses == 1:
        found += [("samples", r) for r in without_effect(samples, "with `uses: 1`", "buffer")]
    elif samples.cache or samples.real == "pictures":
        source = "cache" if samples.cache else "real: pictures"
        said = f"saves nothing with `{source}`: the run only sees fewer of them, each more often"
        found.append(("samples", Remark(said, "uses", is_error=False)))
    if samples.real == "teacher":
        said = "with `real: teacher`; it is for pictures"
        found += [("samples", r) for r in without_effect(samples, said, "real_cache")]
    if not warmup.student:
        found += [("warmup", r) for r in without_effect(warmup, "with `student: 0`", "losses")]
        said = "without `warmup.student`"
        found += [("optim", r) for r in without_effect(optim, said, "warmup")]
    if recipe.run.compile and recipe.run.parallel == "fsdp2":
        said = "does not go with `parallel: fsdp2` here, whose shards are gathered block by block"
        found.append(("run", Remark(said, "compile")))
    if recipe.run.offload_ema and recipe.run.parallel == "fsdp2":
        said = (
            "does not go with `parallel: fsdp2`, where every process has its shard of the average"
        )
        found.append(("run", Remark(said, "offload_ema")))
    if not recipe.student.ema:
        said = "without `student.ema`"
        found += [("run", r) for r in without_effect(recipe.run, said, "offload_ema")]
    if not recipe.all_critics():
        said = "without a `pool`"
        found += [("run", r) for r in without_effect(recipe.run, said, "offload_heads")]
    yield from (((section,), remark) for section, remark in found)
