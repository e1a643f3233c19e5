"""Pairs of noise and teacher sample: made online, or once into a cache on disk.

A sample's prompt, x_T and x_0 depend on its number alone, so a cache changes no run: online and
cached runs of a deterministic teacher are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Condition, Teacher
from distillkit.disk import save_tensors, write_text
from distillkit.errors import UserError
from distillkit.randomness import generator, noise
from distillkit.recipe import Recipe
from distillkit.stream import Stream

MOST_PROMPTS = 100_000
"""Prompts that a cache's identity covers; a longer list is told apart by its length as well."""


@dataclass(frozen=True)
class Pairs:
    """Numbered samples: what student and teacher both start from, and where the teacher ends."""

    teacher: Teacher
    stream: Stream
    device: Any = "cpu"
    cached: dict[int, Tensor] = field(default_factory=dict)
    """x_0 by sample number; empty samples online."""

    def conditions(self, ids: Sequence[int]) -> Condition:
        """What the networks are told of each sample."""
        return self.teacher.encode([self.stream.prompt(i) for i in ids]).to(self.device)

    def x_T(self, ids: Sequence[int]) -> Tensor:
        """The noise of each sample, (B, C, H, W)."""
        return noise(self.teacher.latent_shape, self.stream.seed, "x_T", ids).to(self.device)

    def x_0(self, ids: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample for each: from the cache, or sampled here."""
        if self.cached:
            return torch.stack([self.cached[i] for i in ids]).to(self.device)
        return self.sample(ids, x_T_BCHW, cond)

    @torch.no_grad()
    def sample(self, ids: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample for each, sampled here."""
        generators = [generator(self.stream.seed, "teacher", i) for i in ids]
        return self.teacher.sample(x_T_BCHW, cond, generators)


class SampleCache:
    """A folder of safetensors shards, one a call of the teacher, each written whole or not at all.

    `index.json` says which teacher, prompts and seed the samples belong to; another recipe's
    cache is refused.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], count: int, batch: int) -> None:
        self.folder, self.count, self.batch = folder, count, batch
        self.dtype = getattr(torch, identity["dtype"])
        text = json.dumps(identity | {"count": count, "batch": batch}, sort_keys=True, indent=1)
        index = folder / "index.json"
        if index.exists() and index.read_text() != text:
            raise UserError(
                f"{folder} holds samples of another teacher, prompt list, seed or count "
                f"(see {index}); name another folder in samples.cache, or remove this one."
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not index.exists():
            write_text(index, text)

    @property
    def shards(self) -> list[range]:
        """Sample numbers of every shard."""
        starts = range(0, self.count, self.batch)
        return [range(s, min(s + self.batch, self.count)) for s in starts]

    def path(self, shard: range) -> Path:
        """File of a shard."""
        return self.folder / f"samples-{shard.start:08d}.safetensors"

    def missing(self) -> list[range]:
        """Shards that are still to be made."""
        return [shard for shard in self.shards if not self.path(shard).exists()]

    def fill(self, pairs: Pairs, shards: Iterable[range]) -> Iterator[range]:
        """Sample the shards one by one; yields each when it is on disk."""
        for shard in shards:
            ids = list(shard)
            x_0_BCHW = pairs.sample(ids, pairs.x_T(ids), pairs.conditions(ids))
            save_tensors(self.path(shard), {"x_0": x_0_BCHW.to("cpu", self.dtype)})
            yield shard

    def load(self) -> dict[int, Tensor]:
        """x_0 by sample number, in memory."""
        from safetensors.torch import load_file

        rows: dict[int, Tensor] = {}
        for shard in self.shards:
            rows.update(zip(shard, load_file(self.path(shard))["x_0"].float(), strict=True))
        return rows


def cache_folder(name: str) -> Path:
    """The folder that `samples.cache` names; `package:NAME/folder` lies in an installed package."""
    if not name.startswith("package:"):
        return Path(name)
    package, _, inside = name.removeprefix("package:").partition("/")
    try:
        return Path(str(files(package))) / inside
    except ModuleNotFoundError:
        raise UserError(f"samples.cache: there is no package {package!r} for {name!r}") from None


def identity(recipe: Recipe, teacher: Teacher, prompts: Sequence[str]) -> dict[str, Any]:
    """What a recipe's samples depend on: teacher and weights, seed, and the prompts.

    Of every weight tensor a few numbers are read: enough to tell two checkpoints apart.
    """
    weights, words = hashlib.sha256(), hashlib.sha256(str(len(prompts)).encode())
    for module in teacher.modules():
        for p in module.parameters():
            weights.update(p.detach().flatten()[:4].float().cpu().numpy().tobytes())
    for i in range(min(len(prompts), MOST_PROMPTS)):
        words.update(prompts[i].encode() + b"\0")
    return {
        "teacher": recipe.teacher.model_dump(mode="json"),
        "weights": weights.hexdigest()[:16],
        "seed": recipe.samples.seed,
        "dtype": recipe.samples.dtype,
        "prompts": words.hexdigest()[:16],
    }
