"""Caches: the same run as online, resumable, sized beforehand, and refused to other recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.api import train
from distillkit.errors import UserError
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.exchange import packaged_path
from distillkit.recipe.schema import Recipe, SamplesConfig
from distillkit.samples.cache import pictures_cache, training_cache
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.samples.pictures import PictureLatents
from distillkit.training.build import build_parts
from tests.distillkit.training.test_samples import Album
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
    with pytest.raises(UserError, match=r"1000000 samples take 1.02 GB.*max_gb allows 0.5"):
        training_cache(small, samples)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer(cached(tmp_path / "cache"), tmp_path / "a").train()
    other = cached(tmp_path / "cache", seed=1)
    with pytest.raises(UserError, match=r"samples of another seed \(see .*folder in samples.cache"):
        trainer(other, tmp_path / "b").train()
    assert not (tmp_path / "b" / "recipe.yaml").exists()


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe"])
def test_a_damaged_index_is_named(damage: bytes, tmp_path: Path) -> None:
    trainer(cached(tmp_path / "cache"), tmp_path / "run").train()
    (tmp_path / "cache" / "index.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"index.json can't be read .*remove the folder"):
        trainer(cached(tmp_path / "cache"), tmp_path / "again").train()


def test_shards_without_an_index_are_nobodys(tmp_path: Path) -> None:
    trainer(cached(tmp_path / "cache"), tmp_path / "run").train()
    (tmp_path / "cache" / "index.json").unlink()
    for recipe in (cached(tmp_path / "cache"), cached(tmp_path / "cache", seed=1)):
        with pytest.raises(UserError, match=r"index.json can't be read .*remove the folder"):
            trainer(recipe, tmp_path / "again").train()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"count": 100_000, "max_gb": 0.1}, r"^samples.cache: 100000 .*Raise it, lower samples.c"),
        ({"max_gb": 1e-4}, r"^samples.cache: 2000 .*lower metrics.num_images, or set samples.dty"),
        ({"max_gb": 1e-4, "dtype": "float16"}, r"Raise it, or lower metrics.num_images.$"),
    ],
    ids=["training's", "evaluation's", "halved already"],
)
def test_a_run_whose_caches_are_too_large_is_refused_before_it_is_begun(
    tmp_path: Path, limit: dict[str, Any], said: str
) -> None:
    """12 samples of training are 12 KB; the 2,000 of evaluation are made after the training."""
    metrics = (ExampleMetricsConfig(num_images=2000),)
    recipe = cached(tmp_path / "cache", **limit).model_copy(update={"metrics": metrics})
    with pytest.raises(UserError, match=said):
        train(recipe, tmp_path / "run")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]
    with pytest.raises(UserError, match=said):
        train(recipe, tmp_path / "run")  # which holds no run


def test_a_cache_of_pictures_is_called_by_its_own_name(tmp_path: Path) -> None:
    """`samples.cache` and `samples.count` have nothing to do with it."""
    pictures = PictureLatents(world_teacher(), Album([f"caption {n}" for n in range(7)]))

    def cache(**fields: Any) -> Any:
        samples = SamplesConfig(real="pictures", real_cache=str(tmp_path), **fields)
        made = pictures_cache(world_recipe(samples=samples), pictures)
        assert made is not None
        return made

    with pytest.raises(UserError) as refused:
        cache(max_gb=1e-6)
    said = "Raise it, give fewer pictures, or set samples.dtype to float16."
    assert str(refused.value).startswith("samples.real_cache: 7 samples take ")
    assert str(refused.value).endswith(said)
    list((made := cache()).fill(pictures, made.missing()))
    with pytest.raises(UserError, match=r"another dtype \(see .*folder in samples.real_cache"):
        cache(dtype="float16")


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
