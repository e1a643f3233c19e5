"""The teacher's samples on disk: made once, read row by row, the same as sampled online.

A cache is a folder of safetensors shards, one a call of the teacher, each written whole or not at
all; so a process that is killed loses one shard, and several can fill one cache. `index.json`
states which teacher, prompts and seed the samples belong to: another recipe's cache is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.atomic import save_tensors, write_text
from distillkit.contracts import Teacher
from distillkit.errors import UserError
from distillkit.exchange import PREFIX, packaged_path
from distillkit.recipe.schema import Recipe, SamplesConfig
from distillkit.recipe.sections import teacher_fields
from distillkit.samples import fingerprint
from distillkit.samples.fingerprint import KEY
from distillkit.samples.pairs import TeacherSamples
from distillkit.samples.pictures import PictureLatents
from distillkit.values import Condition

MOST_PROMPTS = 100_000
"""Prompts that a cache's identity covers; longer lists also differ by their length."""


class SampleCache:
    """Samples 0 to `count`, in shards of `batch`.

    `field` of the recipe names its folder, and `fewer` says how its `count` is lowered.
    `computes_with` is the teacher's fingerprint, which is compared where the index has one. Raises
    `UserError` where other samples are there, or some of which nothing tells whose they are.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        count: int,
        batch: int,
        *,
        field: str = "samples.cache",
        fewer: str = "lower samples.count",
        computes_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.count, self.batch = folder, count, batch
        self.field, self.fewer = field, fewer
        self.identity = dict(identity) | {"count": count, "batch": batch}
        self.dtype: Any = getattr(torch, self.identity["dtype"])
        self.has_conditions = bool(self.identity["conditions"])
        self._open: dict[int, Any] = {}
        self.stated = self.identity | ({} if computes_with is None else {KEY: computes_with})
        index = folder / "index.json"
        if index.exists() or any(folder.glob("samples-*.safetensors")):
            self._compare(index)

    def _compare(self, index: Path) -> None:
        """Raise `UserError` where an index is of other samples."""
        there, place = _read(index), f"name another folder in {self.field}, or remove this one."
        if differing := _differing(there, self.identity):
            raise UserError(
                f"{self.folder} holds samples of another {', '.join(differing)} (see {index}); "
                f"{place}"
            )
        if changed := fingerprint.differing(there.get(KEY), self.stated.get(KEY)):
            raise UserError(
                f"{self.folder} holds samples that the teacher drew with another "
                f"{', '.join(changed)} (see {index}): its weights are the same, and its "
                f"scheduler's config or tokenizer is not; {place}"
            )
        if KEY not in there:  # of the shards that are there nobody knows it
            self.stated = self.identity

    @cached_property
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

    def gigabytes(self, samples: TeacherSamples | PictureLatents) -> float:
        """Size of the whole cache."""
        values = math.prod(samples.teacher.latent_shape)
        if self.has_conditions:
            values += sum(t[0].numel() for t in samples.conditions([0]).tensors.values())
        return self.count * values * self.dtype.itemsize / 1e9

    def fill(
        self, samples: TeacherSamples | PictureLatents, shards: Sequence[range]
    ) -> Iterator[range]:
        """Sample the shards one by one; yields each when it is on disk."""
        if shards:
            write_text(self.folder / "index.json", json.dumps(self.stated, indent=1) + "\n")
        for shard in shards:
            ids = list(shard)
            cond = samples.conditions(ids)
            rows = {"x_0": samples.sample(ids, samples.x_T(ids), cond)}
            if self.has_conditions:
                rows |= {f"cond.{name}": tensor for name, tensor in cond.tensors.items()}
            # Masks and ids keep their own type, as in `Condition.to`.
            whole = {
                name: t.to("cpu", self.dtype if t.is_floating_point() else None)
                for name, t in rows.items()
            }
            save_tensors(self.path(shard), whole)
            yield shard

    def x_0(self, ids: Sequence[int]) -> Tensor:
        """Samples by number, (B, C, H, W) float32 on the CPU."""
        return self._rows("x_0", ids)

    def conditions(self, ids: Sequence[int]) -> Condition | None:
        """Conditions by number on the CPU, real numbers in float32; None where none are kept."""
        if not self.has_conditions:
            return None
        names = [n for n in self._shard(0).keys() if n.startswith("cond.")]  # noqa: SIM118
        return Condition({n.removeprefix("cond."): self._rows(n, ids) for n in names})

    def _rows(self, name: str, ids: Sequence[int]) -> Tensor:
        places = [divmod(i, self.batch) for i in ids]
        rows = [self._shard(n).get_slice(name)[row : row + 1] for n, row in places]
        # In float32 first: under autocast the CPU joins no rows of float16.
        return torch.cat([row.float() if row.is_floating_point() else row for row in rows])

    def _shard(self, number: int) -> Any:
        """The shard's open file: memory-mapped, so that only the rows asked for are read."""
        if number not in self._open:
            from safetensors import SafetensorError, safe_open

            path = self.path(self.shards[number])
            try:
                self._open[number] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"{path} can't be read ({error}); remove it, and `distillkit precompute` "
                    "makes it again"
                ) from None
        return self._open[number]


def _read(index: Path) -> Any:
    try:
        return json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{index} can't be read ({error}), so it is unknown whose samples these are; remove "
            "the folder, and `distillkit precompute` makes it again"
        ) from None


def _differing(there: Any, identity: Mapping[str, Any]) -> list[str]:
    """What is not the same in a cache's index, by name."""
    if not isinstance(there, dict):
        return list(identity)
    names = dict.fromkeys([*identity, *fingerprint.plain(there)])
    return [name for name in names if there.get(name) != identity.get(name)]


def training_cache(recipe: Recipe, samples: TeacherSamples) -> SampleCache | None:
    """The cache that the recipe's training reads; None where it samples online."""
    config = recipe.samples
    if config.cache is None or config.count is None:
        return None
    folder = packaged_path(config.cache, "samples.cache")
    which, known = identity(recipe, samples), _computes_with(recipe, samples)
    cache = SampleCache(folder, which, config.count, config.batch, computes_with=known)
    return capped(recipe, cache, samples)


def pictures_cache(recipe: Recipe, pictures: PictureLatents) -> SampleCache | None:
    """The cache of the real pictures' latents, by index; None where they are encoded each time."""
    config = recipe.samples
    if config.real_cache is None:
        return None
    which = {
        "teacher": teacher_fields(recipe),
        "weights": weights_digest(pictures.teacher),
        "pictures": pictures.source.digest(),
        "dtype": config.dtype,
        "conditions": False,
    }
    folder = packaged_path(config.real_cache, "samples.real_cache")
    cache = SampleCache(
        folder,
        which,
        len(pictures.source),
        config.batch,
        field="samples.real_cache",
        fewer="give fewer pictures",
    )
    return capped(recipe, cache, pictures)


def evaluation_cache(recipe: Recipe, samples: TeacherSamples, count: int) -> SampleCache | None:
    """The cache of a set that is evaluated: a folder of its own within the recipe's cache.

    Its name holds a digest of what the samples depend on, so other metrics get another folder,
    none is refused after a long training, and a folder made elsewhere can be put there. How large
    it may be is seen before a run begins (`capped`): here it is as large as it is.
    """
    config = recipe.samples
    if config.cache is None:
        return None
    which = identity(recipe, samples) | {"for": "figures"}
    text = json.dumps(which | {"count": count, "batch": config.batch}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = packaged_path(config.cache, "samples.cache") / f"figures-{digest}"
    fewer = "lower metrics.num_images" if recipe.metrics else ""
    known = _computes_with(recipe, samples)
    return SampleCache(folder, which, count, config.batch, fewer=fewer, computes_with=known)


def identity(recipe: Recipe, samples: TeacherSamples) -> dict[str, Any]:
    """What samples depend on: teacher and weights, prompts and seed; and the cache's format."""
    return {
        "teacher": teacher_fields(recipe),
        "weights": weights_digest(samples.teacher),
        "prompts": prompts_digest(samples.order.prompts),
        "seed": samples.order.seed,
        "dtype": recipe.samples.dtype,
        "conditions": recipe.samples.cache_prompt_embeds,
    }


def _computes_with(recipe: Recipe, samples: TeacherSamples) -> dict[str, Any]:
    """The teacher's fingerprint; without prompts where a cache holds their conditions, with which
    training encodes none."""
    if recipe.samples.cache_prompt_embeds:
        return fingerprint.fingerprint(samples.teacher)
    return samples.fingerprint


def weights_digest(teacher: Teacher) -> str:
    """Of every weight tensor a few numbers are read: enough to tell two checkpoints apart."""
    digest = hashlib.sha256()
    for module in teacher.modules():
        for p in module.parameters():
            digest.update(p.detach().flatten()[:4].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def prompts_digest(prompts: Sequence[str]) -> str:
    """Digest of the prompts' number and texts."""
    digest = hashlib.sha256(str(len(prompts)).encode())
    for i in range(min(len(prompts), MOST_PROMPTS)):
        digest.update(prompts[i].encode() + b"\0")
    return digest.hexdigest()[:16]


def is_shipped(samples: SamplesConfig) -> bool:
    """Whether the cache lies in an installed package: a run writes no evaluation set into it."""
    return samples.cache is not None and samples.cache.startswith(PREFIX)


def capped(
    recipe: Recipe, cache: SampleCache, samples: TeacherSamples | PictureLatents
) -> SampleCache:
    """The cache, if it is there or is not larger than the recipe allows; else `UserError`."""
    if not cache.missing():
        return cache
    size, most = cache.gigabytes(samples), recipe.samples.max_gb
    if size > most:
        halved = "set samples.dtype to float16" if recipe.samples.dtype == "float32" else ""
        *ways, last = filter(None, ("Raise it", cache.fewer, halved))
        advice = f"{', '.join(ways)}, or {last}" if ways else last
        raise UserError(
            f"{cache.field}: {cache.count} samples take {size:.3g} GB in {cache.folder}, and "
            f"samples.max_gb allows {most:g}. {advice}."
        )
    return cache
