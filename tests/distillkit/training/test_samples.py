"""What is real and what is fake in an iteration: noise of its own, pictures of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from distillkit.configs import PromptsConfig
from distillkit.errors import UserError
from distillkit.randomness import generator
from distillkit.recipe.schema import RunConfig, SamplesConfig, WarmupConfig
from distillkit.recipe.sections import section_remarks
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.schedule import IterationSpec
from distillkit.training.step import make_batch
from distillkit.training.trainer import Trainer
from tests.distillkit.world import trainer, world_recipe


def _batch_at(run: Trainer, spec: IterationSpec, positions: range) -> LazyTrainBatch:
    """The micro-batch of these four pictures of the run, at whatever iteration's spec."""
    return make_batch(run.state, spec, positions.start // 4, 0, [])


def test_fresh_noise_leaves_the_warmup_and_the_teachers_pictures_as_they_are(
    tmp_path: Path,
) -> None:
    samples = SamplesConfig(count=4, cache=str(tmp_path / "cache"), noise="fresh")
    warmup = WarmupConfig(student=1, losses=[{"type": "regression"}], critic=1)
    run = trainer(world_recipe(samples=samples, warmup=warmup), tmp_path / "run")
    run.train()
    state, once, again = run.state, range(4), range(4, 8)
    batches = {
        (i, first): _batch_at(run, run.schedule.spec(i), positions)
        for i in range(3)
        for first, positions in ((True, once), (False, again))
    }
    ids = [state.samples.order.sample_id(p) for p in once]
    assert torch.equal(batches[0, True].x_T_BCHW, state.samples.x_T(ids))
    assert torch.equal(batches[0, True].real_BCHW, batches[2, True].real_BCHW)
    for i in (1, 2):  # critic warm-up, and both players
        drawn = torch.cat([batches[i, True].x_T_BCHW, batches[i, False].x_T_BCHW])
        # The second epoch over the same four samples starts elsewhere.
        assert len(drawn.flatten(1).unique(dim=0)) == 8
        assert not torch.isclose(drawn[:4], batches[0, True].x_T_BCHW).all(dim=(1, 2, 3)).any()


@pytest.mark.parametrize("split", [{"batch": 4}, {"batch": 2, "accumulate": 2}])
def test_a_sample_is_made_once_and_used_several_times(
    tmp_path: Path, split: dict[str, int]
) -> None:
    """3 uses of 2 iterations' samples; the same pictures as when each use samples anew."""
    recipe = world_recipe(samples=SamplesConfig(uses=3, buffer=2), run=RunConfig(**split))
    run = trainer(recipe, tmp_path)
    samples, teacher = run.state.samples, run.parts.teacher
    sample, made = teacher.sample, []
    teacher.sample = lambda *given: made.append(len(given[0])) or sample(*given)  # type: ignore
    seen: dict[int, list[tuple[Tensor, ...]]] = {}
    for i in range(12):
        for micro in range(split.get("accumulate", 1)):
            batch = make_batch(run.state, run.schedule.spec(i), i, micro, [])
            ids = [samples.order.sample_id(p) for p in batch.positions]
            alone = sample(samples.x_T(ids), batch.cond, [generator(0, "teacher", n) for n in ids])
            assert torch.equal(batch.real_BCHW, alone)
            draws = batch.noise("a loss"), batch.x_T_BCHW, batch.real_BCHW
            for n, rows in zip(ids, zip(*draws, strict=True), strict=True):
                seen.setdefault(n, []).append(rows)
    assert sum(made) == 16  # of 48 pictures
    assert {len(uses) for uses in seen.values()} == {3}
    for uses in seen.values():
        noises, x_Ts, x_0s = (torch.stack(values) for values in zip(*uses, strict=True))
        assert len(noises.flatten(1).unique(dim=0)) == 3
        assert len(x_Ts.flatten(1).unique(dim=0)) == len(x_0s.flatten(1).unique(dim=0)) == 1


def test_repeated_samples_beside_a_cache_are_noted() -> None:
    def notes(**fields: Any) -> list[str]:
        samples = SamplesConfig(**fields)
        found = section_remarks(world_recipe(samples=samples))
        return [str(remark.message) for path, remark in found if path[0] == "samples"]

    assert notes(uses=4) == []
    assert notes(buffer=64) == ["has no effect with `uses: 1`"]
    [said] = notes(uses=2, count=4, cache="folder")
    assert said.startswith("saves nothing with `cache`: the run only sees fewer of them")
    assert "`real: pictures`" in notes(uses=2, real="pictures")[0]
    assert notes(dtype="float16") == ["has no effect without a cache"]
    assert notes(dtype="float16", real="pictures", real_cache="folder") == []


class Album(list[str]):
    """Captions, each of whose pictures has one colour: that of its number."""

    def images(self, indices: Sequence[int], height: int, width: int) -> Tensor:
        return torch.tensor(indices)[:, None, None, None].expand(-1, 3, height, width) / 8

    def digest(self) -> str:
        return "album"


class AlbumConfig(PromptsConfig):
    type: Literal["album"] = "album"

    def build(self) -> Any:
        return Album(f"caption {n}" for n in range(7))


@pytest.mark.parametrize("cached", [False, True])
def test_real_pictures_take_the_teachers_place_after_the_warmup(
    tmp_path: Path, cached: bool
) -> None:
    """The picture of the sample's own caption, as a latent: caption n's is n / 4 - 1 throughout."""
    samples = SamplesConfig(real="pictures", real_cache=str(tmp_path / "c") if cached else None)
    warmup = WarmupConfig(student=1, losses=[{"type": "regression"}], critic=1)
    run = trainer(world_recipe(prompts=AlbumConfig(), samples=samples, warmup=warmup), tmp_path)
    run.train()
    state = run.state
    for i in range(3):
        batch = make_batch(state, run.schedule.spec(i), i, 0, [])
        ids = [state.samples.order.sample_id(p) for p in range(4 * i, 4 * i + 4)]
        captions = [state.samples.order.prompt(n) for n in ids]
        colours = torch.tensor([int(caption.split()[1]) / 4 - 1 for caption in captions])
        pictures = colours[:, None, None, None].expand(-1, 4, 8, 8)
        assert torch.equal(batch.x_T_BCHW, state.samples.x_T(ids))
        assert torch.isclose(batch.real_BCHW, pictures).all() == (i > 0)


def test_prompts_without_pictures_are_told() -> None:
    with pytest.raises(UserError, match=r"samples\.real: prompts 'list' have no pictures"):
        trainer(world_recipe(samples=SamplesConfig(real="pictures")), Path("unused"))
