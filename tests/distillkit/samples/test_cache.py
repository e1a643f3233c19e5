"""Caches: the same run as online, resumable, sized beforehand, and refused to other recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillkit.errors import UserError
from distillkit.exchange import packaged_path
from distillkit.recipe.schema import Recipe, SamplesConfig
from distillkit.samples.cache import training_cache
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import build_parts
from tests.distillkit.world import (
    assert_same,
    everything,
    trainer,
    world_recipe,
    world_teacher,
)


def cached(folder: Path, **changes: object) -> Recipe:
    numbers = {"count": 12, "cache": str(folder), "batch": 5} | changes
    return world_recipe(samples=SamplesConfig.model_validate(numbers))


@pytest.mark.parametrize("embeds", [False, True])
def test_online_and_cached_samples_give_the_same_run(tmp_path: Path, embeds: bool) -> None:
    online = trainer(world_recipe(samples=SamplesConfig(count=12)), tmp_path / "online")
    online.train()
    recipe = cached(tmp_path / "cache", cache_prompt_embeds=embeds)
    from_cache = trainer(recipe, tmp_path / "cached")
    from_cache.train()
    assert_same(everything(online), everything(from_cache))
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3


def test_with_prompt_embeds_in_it_training_encodes_nothing(tmp_path: Path) -> None:
    recipe = cached(tmp_path / "cache", cache_prompt_embeds=True)
    trainer(recipe, tmp_path / "first").train()
    again = trainer(recipe, tmp_path / "second")
    asked: list[object] = []
    again.parts.teacher.encode = asked.append  # type: ignore[method-assign,assignment]
    again.train()
    assert asked == []


def samples_of(recipe: Recipe) -> TeacherSamples:
    parts = build_parts(recipe)
    return TeacherSamples(
        parts.teacher, SampleOrder(parts.prompts, recipe.samples.seed, recipe.samples.count)
    )


def test_filling_continues_where_it_stopped(tmp_path: Path) -> None:
    recipe = cached(tmp_path)
    samples = samples_of(recipe)
    cache = training_cache(recipe, samples)
    assert cache is not None
    assert cache.missing() == [range(5), range(5, 10), range(10, 12)]
    next(cache.fill(samples, cache.missing()))
    again = training_cache(recipe, samples)
    assert again is not None
    assert again.missing() == [range(5, 10), range(10, 12)]
    list(again.fill(samples, again.missing()))
    want = samples.sample([3, 11], samples.x_T([3, 11]), samples.conditions([3, 11]))
    assert torch.equal(again.x_0([3, 11]), want)


def test_rows_do_not_depend_on_the_order_of_asking(tmp_path: Path) -> None:
    recipe = cached(tmp_path, dtype="float16")
    samples = samples_of(recipe)
    cache = training_cache(recipe, samples)
    assert cache is not None
    list(cache.fill(samples, cache.missing()))
    rows = cache.x_0(range(12))
    assert rows.dtype == torch.float32
    assert torch.equal(cache.x_0([7, 0, 11]), rows[[7, 0, 11]])


def test_size_is_told_beforehand_and_capped(tmp_path: Path) -> None:
    """1,000,000 samples of 4 * 8 * 8 float16 values are 0.512 GB; embeddings add 2 values each."""
    recipe = cached(tmp_path, count=1_000_000, dtype="float16", cache_prompt_embeds=True)
    samples = TeacherSamples(world_teacher(), SampleOrder(["a"], 0, 1_000_000))
    cache = training_cache(recipe, samples)
    assert cache is not None
    assert cache.gigabytes(samples) == pytest.approx(0.516)
    small = cached(tmp_path, count=1_000_000, max_gb=0.5)
    with pytest.raises(UserError, match=r"1000000 samples take 1.0 GB.*max_gb allows 0.5"):
        training_cache(small, samples)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer(cached(tmp_path / "cache"), tmp_path / "a").train()
    other = cached(tmp_path / "cache", seed=1)
    with pytest.raises(UserError, match="samples of another teacher, prompt list, seed, count"):
        trainer(other, tmp_path / "b").train()


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe"])
def test_a_damaged_index_is_named(damage: bytes, tmp_path: Path) -> None:
    trainer(cached(tmp_path / "cache"), tmp_path / "run").train()
    (tmp_path / "cache" / "index.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"index.json can't be read .*remove the folder"):
        trainer(cached(tmp_path / "cache"), tmp_path / "again").train()


def test_a_torn_shard_is_named(tmp_path: Path) -> None:
    trainer(cached(tmp_path / "cache"), tmp_path / "a").train()
    shard = tmp_path / "cache" / "samples-00000005.safetensors"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(UserError, match=r"samples-00000005.safetensors can't be read.*remove it"):
        trainer(cached(tmp_path / "cache"), tmp_path / "b").train()


def test_a_cache_may_lie_in_a_package() -> None:
    folder = packaged_path("package:distillkit_nitrofusion/samples", "samples.cache")
    assert folder.parent.name == "distillkit_nitrofusion"
    with pytest.raises(UserError, match="no package 'no_such_package'"):
        packaged_path("package:no_such_package/samples", "samples.cache")
