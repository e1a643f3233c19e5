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
from distillkit.recipe.schema import SamplesConfig, WarmupConfig
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
