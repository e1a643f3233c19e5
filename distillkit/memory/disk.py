"""What a run writes, in bytes, counted on a dry run's networks."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from distillkit.memory.dry_run import DryRun
from distillkit.recipe.schema import Recipe
from distillkit.training.models.optimizers import moments_bytes
from distillkit.training.state import published_weights


def disk_of(recipe: Recipe, dry: DryRun) -> dict[str, int]:
    """Bytes of the checkpoints, the snapshots and the samples' cache, each with its number."""
    state, keep = dry.state, recipe.run.keep_checkpoints
    refinement = dry.schedule.refinement
    stages = {refinement.stage(i) for i in range(refinement.iterations)}
    snapshots = len(stages) + 1
    sizes = {
        # An old one goes when the new one is whole.
        f"checkpoints: {keep} kept, 1 being written": (keep + 1) * _checkpoint(recipe, dry),
        f"snapshots: {snapshots}": snapshots * _bytes(*published_weights(state).values()),
    }
    samples = recipe.samples
    if samples.cache is not None and samples.count is not None:
        values = prod(dry.parts.teacher.latent_shape)
        if samples.cache_prompt_embeds:
            values += sum(t[0].numel() for t in dry.parts.teacher.encode([""]).tensors.values())
        each = values * getattr(torch, samples.dtype).itemsize
        if not samples.cache.startswith("package:"):
            sizes[f"teacher samples: {samples.count:,}"] = samples.count * each
            sets = 2 * recipe.metrics[0].num_images if recipe.metrics else 0
            sizes[f"samples of the metrics' sets: {sets:,}"] = sets * each
    return sizes


def _checkpoint(recipe: Recipe, dry: DryRun) -> int:
    """Bytes of one: weights, EMA, heads, and the moments of all that has been stepped."""
    state, optim = dry.state, recipe.optim
    student = list(state.student.network.module.parameters())
    heads = [p for critic in state.critics for p in critic.pool.heads.parameters()]
    aux = [p for module in state.aux_networks for p in module.parameters()]
    ema = state.ema.weights.values() if state.ema is not None else ()
    critic_optim = optim.critic or optim.student
    moments = (
        moments_bytes([p for p in student if p.requires_grad], optim.student)
        + moments_bytes(heads, critic_optim)
        + moments_bytes([p for p in aux if p.requires_grad], optim.aux or critic_optim)
    )
    return _bytes(*student, *heads, *aux, *ema) + moments


def _bytes(*tensors: Tensor) -> int:
    return sum(t.nbytes for t in tensors)
