"""A whole run: it stops and resumes bit for bit, and stops by itself before NaN spreads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from distillkit import api
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    SamplesConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.runs.checkpoint import Checkpoints
from distillkit.runs.folder import RunFolder, read_log
from distillkit.training.build import build_parts
from distillkit.training.callbacks import Callback, Stopped
from distillkit.training.checks import CannotLearnError
from distillkit.training.metrics import Diverged
from distillkit.training.state import published_weights
from tests.distillkit.world import (
    MeanGuess,
    MeanGuessConfig,
    StopAfter,
    assert_same,
    everything,
    made_up_loss,
    trainer,
    world_recipe,
)


class Messages(Callback):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)


def recipe_with_every_phase() -> Recipe:
    warmup = WarmupConfig(student=3, losses=[{"type": "regression"}], critic=2)
    # Stopped after iteration 9, it lacks samples that are still to be used: 2 iterations' in 6.
    return world_recipe(warmup=warmup, samples=SamplesConfig(uses=3, buffer=2))


def recipe_without_critics() -> Recipe:
    """The loss owns the only network that trains beside the student."""
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), aux=AdamWConfig(lr=0.5), critic_updates=2
    )
    losses = [MeanGuessConfig()]
    return world_recipe(losses=losses, optim=optim, pool=None, backbone=None, refresh=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("make_recipe", [recipe_with_every_phase, recipe_without_critics])
def test_stopped_and_resumed_run_equals_unbroken_run_bit_for_bit(
    tmp_path: Path, make_recipe: Any, number: int
) -> None:
    recipe = make_recipe()
    whole = trainer(recipe, tmp_path / "whole")
    whole.train()
    broken = trainer(recipe, tmp_path / "broken", StopAfter(9, number))
    with pytest.raises(Stopped, match="after iteration 9"):
        broken.train()
    resumed = trainer(recipe, tmp_path / "broken")
    resumed.train(resume=True)
    assert_same(everything(whole), everything(resumed))
    a, b = (read_log(tmp_path / name / "log.jsonl") for name in ("whole", "broken"))
    assert [r | {"seconds": 0} for r in a] == [r | {"seconds": 0} for r in b]
    for name in ("start", "1-step", "2-step", "4-step"):
        files = [RunFolder(tmp_path / f).snapshot(name).read_bytes() for f in ("whole", "broken")]
        assert files[0] == files[1]


def test_a_signal_while_the_loop_looks_for_one_is_saved_before_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds none and every later one does: one look decides of both."""
    looks: list[int] = []

    @contextmanager
    def signals() -> Iterator[Callable[[], bool]]:
        yield lambda: looks.append(1) or len(looks) > 1  # type: ignore[func-returns-value]

    monkeypatch.setattr("distillkit.training.trainer._signals", signals)
    run = trainer(world_recipe(), tmp_path)
    with pytest.raises(Stopped) as stopped:
        run.train()
    assert run.checkpoints.iterations() == [stopped.value.iteration]


class TiedGuess(MeanGuess):
    """Its network has two names for one weight, as language models often have."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = torch.nn.Module()
        self.tied.one, self.tied.other = self.bias, torch.nn.Linear(1, 1, bias=False)
        self.tied.other.weight = self.bias.weight

    def modules(self) -> list[torch.nn.Module]:
        return [self.tied]


class TiedGuessConfig(MeanGuessConfig):
    def build(self, teacher: Any, student: Any) -> Any:
        return TiedGuess()


def test_a_network_with_tied_weights_is_saved_and_resumed(tmp_path: Path) -> None:
    recipe = recipe_without_critics().model_copy(update={"losses": [TiedGuessConfig()]})
    whole = trainer(recipe, tmp_path / "whole")
    whole.train()
    with pytest.raises(Stopped, match="after iteration 9"):
        trainer(recipe, tmp_path / "broken", StopAfter(9, signal.SIGTERM)).train()
    resumed = trainer(recipe, tmp_path / "broken")
    resumed.train(resume=True)
    assert_same(everything(whole), everything(resumed))
    [tied] = resumed.state.aux_networks
    assert tied.one.weight is tied.other.weight


def ends_alike(recipe: Recipe, folder: Path, *, old: bool = False) -> list[str]:
    """What a run is told or refused with at its end, unbroken and stopped after 5 iterations alike.

    `old`: the checkpoint is one of a version that did not keep who has learned.
    """
    said: list[list[str]] = []
    for name in ("whole", "broken"):
        told = Messages()
        if name == "broken":
            with pytest.raises(Stopped, match="after iteration 5"):
                trainer(recipe, folder / name, StopAfter(5, signal.SIGTERM)).train()
            if old:
                path = folder / name / "checkpoints" / "00000005"
                found = load_file(path / "progress.safetensors")
                del found["learning"]
                Checkpoints(path.parent, 1).save(5, tensors_of(path) | {"progress": found})
        try:
            trainer(recipe, folder / name, told).train(resume=name == "broken")
        except CannotLearnError as error:
            told.texts.append(str(error))
        said.append(told.texts)
    assert said[0] == said[1]
    return said[0]


def tensors_of(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    return {file.stem: load_file(file) for file in checkpoint.glob("*.safetensors")}


def quiet_after(iterations: int) -> Any:
    """A loss that has no more to say to the student after so many iterations."""
    return made_up_loss(
        student=lambda batch: batch.fake_BCHW.square().mean() * (batch.iteration < iterations)
    )


@pytest.mark.parametrize("old", [False, True])
def test_a_resumed_run_knows_that_the_student_has_learned(tmp_path: Path, old: bool) -> None:
    """Then it may be silent for as long as it likes, as in a run that was not stopped."""
    refinement = {"type": "fixed", "steps": 1, "iterations": 30}
    recipe = world_recipe(losses=[quiet_after(3)], refinement=refinement)
    assert ends_alike(recipe, tmp_path, old=old) == []


def test_a_resumed_run_goes_on_counting_updates_without_a_gradient(tmp_path: Path) -> None:
    refinement = {"type": "fixed", "steps": 1, "iterations": 12}
    recipe = world_recipe(losses=[quiet_after(0)], refinement=refinement)
    [said] = ends_alike(recipe, tmp_path / "short")
    assert said.startswith("No gradient has reached the student in its 12 updates: what is publi")
    longer = recipe.refinement.model_copy(update={"iterations": 25})
    [said] = ends_alike(recipe.model_copy(update={"refinement": longer}), tmp_path / "long")
    assert said.startswith("No gradient has reached the student's weights in 20 updates.")


def test_a_resumed_run_without_a_term_for_the_student_is_refused_at_its_end(
    tmp_path: Path,
) -> None:
    refinement = {"type": "fixed", "steps": 2, "iterations": 8}
    recipe = world_recipe(losses=[{"type": "regression"}], refinement=refinement)
    [said] = ends_alike(recipe, tmp_path)
    assert "returned None for roll-outs of 2 steps" in said


def test_nan_stops_the_run_before_it_reaches_the_weights(tmp_path: Path) -> None:
    run = trainer(world_recipe(run=RunConfig(batch=4, checkpoint_every=5)), tmp_path)
    teacher: Any = run.parts.teacher
    sample, calls = teacher.sample, []

    def poisoned(x_T: Tensor, cond: Any, generators: Any) -> Tensor:
        calls.append(1)
        return sample(x_T, cond, generators) * (float("nan") if len(calls) > 12 else 1)

    teacher.sample = poisoned
    with pytest.raises(Diverged, match=r"critic's loss is nan, and the real samples.*checkpoint.*"):
        run.train()
    assert run.checkpoints.iterations() == [5, 10]
    assert all(bool(t.isfinite().all()) for t in everything(run).values())


def test_a_student_that_breaks_is_told_what_may_help(tmp_path: Path) -> None:
    """The teacher's samples are sound: rates and losses are what to look at."""
    run = trainer(world_recipe(), tmp_path)
    run.step(0)
    with torch.no_grad():
        next(run.state.student.network.module.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match=r"critic's loss is nan\. Nothing.*critic.lr"):
        run.step(1)


def test_a_teacher_of_sixteen_bits_is_as_good_online_as_from_a_cache(tmp_path: Path) -> None:
    recipe = world_recipe(samples=SamplesConfig(count=4, cache=str(tmp_path / "cache")))
    ends = []
    for samples in (SamplesConfig(count=4), recipe.samples):
        run = trainer(recipe.model_copy(update={"samples": samples}), tmp_path / samples.dtype)
        teacher: Any = run.parts.teacher
        sample = teacher.sample
        teacher.sample = lambda *args, sample=sample: sample(*args).half()
        run.fill_caches()
        run.step(0)
        ends.append(everything(run))
    assert_same(*ends)


def test_a_run_in_a_thread_trains_and_hears_no_signals(tmp_path: Path) -> None:
    run = trainer(world_recipe(), tmp_path)
    thread = Thread(target=run.train)
    thread.start()
    thread.join()
    assert run.checkpoints.iterations()[-1] == 20


def test_student_trains_every_nth_iteration_when_critics_update_more_often(tmp_path: Path) -> None:
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2), critic_updates=4
    )
    run = trainer(world_recipe(optim=optim), tmp_path)
    run.train()
    rows = read_log(tmp_path / "log.jsonl")
    assert [r["iteration"] for r in rows if r["student"] is not None] == [3, 7, 11, 15, 19]
    assert all(r["critic"] is not None for r in rows)


@pytest.mark.usefixtures("fresh_accelerate")
def test_bf16_trains_both_players_and_keeps_float32_weights(tmp_path: Path) -> None:
    samples = SamplesConfig(count=4, cache=str(tmp_path / "cache"), dtype="float16")
    recipe = world_recipe(run=RunConfig(batch=4, precision="bf16"), samples=samples)
    before = {k: v.clone() for k, v in build_parts(recipe).network.module.state_dict().items()}
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    run = api.prepare(recipe, tmp_path, accelerator=accelerator)
    run.train()
    after = published_weights(run.state)
    assert all(v.dtype == torch.float32 for v in after.values())
    assert any(not torch.equal(before[k], after[k]) for k in after)
    rows = read_log(tmp_path / "log.jsonl")
    assert all(r["critic"] == r["critic"] and r["accuracy"] for r in rows)
    # What is judged at the end computes as the published weights do wherever they are loaded.
    bare = build_parts(recipe).network
    bare.module.load_state_dict(after)
    given = torch.randn(2, 4, 8, 8), torch.tensor([999, 499]), run.parts.teacher.encode(["a", "b"])
    assert torch.equal(run.finished_student().network(*given), bare(*given))
