"""What a teacher computes with beside its weights: a changed scheduler or tokenizer is noticed,
another device's rounding is not, and what was made before there were fingerprints stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.errors import UserError
from distillkit.examples.teacher import ExampleTeacher
from distillkit.noising import NoiseSchedule
from distillkit.recipe.schema import Recipe, SamplesConfig
from distillkit.samples.cache import evaluation_cache, identity, training_cache
from distillkit.samples.fingerprint import KEY, agree, differing, fingerprint
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.values import Condition
from tests.distillkit.world import world_recipe, world_schedule, world_teacher

PROMPTS = ["a cat", "a cat on a mat"]


def encoder(teacher: ExampleTeacher, tensors: Callable[[int], dict[str, torch.Tensor]]) -> None:
    """Let the teacher encode by the length of a prompt."""
    encode: Any = lambda prompts: Condition(tensors(len(prompts[0])))  # noqa: E731
    teacher.encode = encode  # type: ignore[method-assign]


def words(shift: int = 0, dtype: torch.dtype = torch.float32) -> ExampleTeacher:
    """A teacher of 14 tokens, 768 numbers each; `shift` of them are others."""
    teacher = world_teacher()
    table = torch.randn(100, 768, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(14) + 50 * (torch.arange(14) < shift)
    encoder(teacher, lambda _: {"words": table[tokens][None].to(dtype)})
    return teacher


def with_prediction(teacher: ExampleTeacher) -> None:
    teacher.denoiser.prediction = "v_prediction"


def with_schedule(teacher: ExampleTeacher) -> None:
    """Zero terminal signal, as a repaired config rescales it."""
    signal_T = teacher.schedule.alpha_bar_T.sqrt()
    signal_T = (signal_T - signal_T[-1]) * signal_T[0] / (signal_T[0] - signal_T[-1])
    teacher.schedule = NoiseSchedule(signal_T.square())


def with_flow(teacher: ExampleTeacher) -> None:
    teacher.schedule = NoiseSchedule.flow_matching()


def with_tokenizer(teacher: ExampleTeacher) -> None:
    encoder(teacher, lambda length: {"told": torch.tensor([[0.1, length / 100]])})


CHANGES = [
    (with_prediction, "prediction (epsilon there, v_prediction here)"),
    (with_schedule, "noise schedule"),
    (with_flow, "noise schedule"),
    (with_tokenizer, "encoding of prompts"),
]


@pytest.mark.parametrize(("change", "name"), CHANGES)
def test_what_differs_is_named(change: Any, name: str) -> None:
    before = json.loads(json.dumps(fingerprint(world_teacher(), PROMPTS)))
    teacher = world_teacher()
    assert differing(before, fingerprint(teacher, PROMPTS)) == []
    change(teacher)
    assert differing(before, fingerprint(teacher, PROMPTS)) == [name]


def test_rounding_is_no_difference_and_one_word_is() -> None:
    before = fingerprint(words(), PROMPTS)
    for dtype in (torch.float16, torch.bfloat16):
        teacher = words(dtype=dtype)
        teacher.schedule = NoiseSchedule(world_schedule().alpha_bar_T * (1 - 1e-6))
        assert differing(before, fingerprint(teacher, PROMPTS)) == []
    for shift in (1, 14):
        assert differing(before, fingerprint(words(shift), PROMPTS)) == ["encoding of prompts"]


def test_padding_is_not_looked_at_and_the_longest_prompt_is() -> None:
    def tensors(length: int, padding: float) -> dict[str, torch.Tensor]:
        words_B2D = torch.full((1, 2, 8), float(length))
        words_B2D[:, 1] = padding
        return {"words": words_B2D, "words_mask": torch.tensor([[True, False]])}

    found = []
    for prompts, padding in ((PROMPTS, 1.0), (PROMPTS, 99.0), (PROMPTS[1:], 1.0)):
        teacher = world_teacher()
        encoder(teacher, lambda length, padding=padding: tensors(length, padding))  # type: ignore[misc]
        found.append(fingerprint(teacher, prompts))
    assert found[0] == found[1] == found[2]


def test_an_encoder_that_gives_nan_is_not_compared() -> None:
    teacher = world_teacher()
    encoder(teacher, lambda _: {"told": torch.tensor([[0.1, torch.nan]])})
    found = fingerprint(teacher, PROMPTS)
    assert found["encoding of prompts"] == {}
    assert differing(found, found) == []


def test_identities_agree_where_one_has_no_fingerprint() -> None:
    teacher = world_teacher()
    old, new = {"seed": 1}, {"seed": 1, KEY: fingerprint(teacher)}
    with_prediction(teacher)
    assert agree(old, new)
    assert agree(new, new)
    assert not agree({"seed": 2}, new)
    assert not agree(None, new)
    assert not agree(new, {"seed": 1, KEY: fingerprint(teacher)})


def cached(folder: Path, **fields: Any) -> tuple[Recipe, TeacherSamples]:
    recipe = world_recipe(samples=SamplesConfig(count=4, batch=2, cache=str(folder), **fields))
    return recipe, TeacherSamples(world_teacher(), SampleOrder(PROMPTS, 0, 4))


def made(of: Any, recipe: Recipe, samples: TeacherSamples) -> None:
    cache = of(recipe, samples)
    list(cache.fill(samples, cache.missing()))


def evaluated(recipe: Recipe, samples: TeacherSamples) -> Any:
    return evaluation_cache(recipe, samples, 4)


@pytest.mark.parametrize("of", [training_cache, evaluated])
@pytest.mark.parametrize(("change", "name"), CHANGES)
def test_a_cache_of_a_teacher_that_changed_is_refused(
    of: Any, change: Any, name: str, tmp_path: Path
) -> None:
    recipe, samples = cached(tmp_path)
    made(of, recipe, samples)
    assert of(recipe, samples).missing() == []
    changed = replace(samples, teacher=(teacher := world_teacher()))
    change(teacher)
    with pytest.raises(UserError) as refused:
        of(recipe, changed)
    assert f" holds samples that the teacher drew with another {name} (see " in str(refused.value)
    said = "index.json): its weights are the same, and its scheduler's config or tokenizer is not; "
    said += "name another folder in samples.cache, or remove this one."
    assert str(refused.value).endswith(said)


def test_a_cache_from_before_there_were_fingerprints_stays_valid(tmp_path: Path) -> None:
    """Begun, whole, and filled further: whose its first shards are is not known any more."""
    recipe, samples = cached(tmp_path)
    index = tmp_path / "index.json"
    before = identity(recipe, samples) | {"count": 4, "batch": 2}
    cache = training_cache(recipe, samples)
    assert cache is not None
    next(cache.fill(samples, cache.missing()))
    assert json.loads(index.read_text()) == before | {KEY: samples.fingerprint}
    index.write_text(json.dumps(before))
    made(training_cache, recipe, samples)
    assert json.loads(index.read_text()) == before
    with_schedule(samples.teacher)  # type: ignore[arg-type]
    again = training_cache(recipe, replace(samples))
    assert again is not None
    assert again.missing() == []


def test_with_prompt_embeds_in_it_no_prompt_is_encoded(tmp_path: Path) -> None:
    recipe, samples = cached(tmp_path, cache_prompt_embeds=True)
    made(training_cache, recipe, samples)
    asked: list[Any] = []
    samples.teacher.encode = asked.append  # type: ignore[method-assign,assignment]
    cache = training_cache(recipe, samples)
    assert cache is not None
    assert "encoding of prompts" not in cache.stated[KEY]
    assert asked == []
