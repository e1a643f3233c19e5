"""The properties of a run: exact resume, untouched heads, frozen networks, exact accumulation."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from distillkit.configs import LossConfig
from distillkit.errors import UserError
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    SamplesConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.runs.folder import RunFolder, read_log
from distillkit.training import state
from distillkit.training.build import build_parts, make_accelerator
from distillkit.training.divergence import Diverged, StepMetrics
from distillkit.training.step import show, train_step
from distillkit.training.trainer import Callback, Stopped, Trainer

from .world import world_recipe


def trainer(recipe: Recipe, folder: Path, callback: Callback | None = None) -> Trainer:
    parts = build_parts(recipe)
    accelerator = Accelerator(cpu=True)
    return Trainer(recipe, RunFolder(folder), parts, accelerator, callback or Callback())


def everything(of: Trainer) -> dict[str, Tensor]:
    saved = state.collect(of.state, of.monitor)
    return {f"{part}.{k}": v.detach().clone() for part, ts in saved.items() for k, v in ts.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} differ: {different[:5]}"


class StopAfter(Callback):
    """Sends a signal to this process in the middle of a run."""

    def __init__(self, iteration: int, number: int) -> None:
        self.at, self.number = iteration, number

    def iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        if i + 1 == self.at:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed_run_equals_unbroken_run_bit_for_bit(
    tmp_path: Path, number: int
) -> None:
    recipe = world_recipe(warmup=WarmupConfig(student=3, losses=[{"type": "regression"}], critic=2))
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


def test_a_damaged_checkpoint_is_passed_over_with_a_word(tmp_path: Path) -> None:
    recipe = world_recipe(run=RunConfig(batch=4, checkpoint_every=5, keep=2))
    whole = trainer(recipe, tmp_path)
    whole.train()
    assert whole.checkpoints.iterations() == [15, 20]
    victim = tmp_path / "checkpoints" / "00000020" / "heads.safetensors"
    victim.write_bytes(victim.read_bytes()[:-7] + b"garbage")
    words: list[str] = []
    again = trainer(recipe, tmp_path)
    again.checkpoints = type(again.checkpoints)(tmp_path / "checkpoints", 2, words.append)
    again.train(resume=True)
    assert "heads.safetensors does not match its checksum" in words[0]
    assert_same(everything(whole), everything(again))


def test_a_checkpoint_that_was_cut_short_is_never_seen(tmp_path: Path, monkeypatch: Any) -> None:
    """A full disk in the middle of a checkpoint leaves the one before, and a sentence."""
    from distillkit.runs import checkpoint

    run = trainer(world_recipe(run=RunConfig(batch=4, checkpoint_every=5)), tmp_path)
    real, calls = checkpoint.write_tensors, []

    def full_disk(path: Path, tensors: Any) -> None:
        calls.append(path)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        run.train()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000005"]


def test_undrawn_heads_have_no_gradient_and_do_not_change(tmp_path: Path) -> None:
    recipe = world_recipe(refresh={"type": "never"})
    run = trainer(recipe, tmp_path)
    state = run.state
    assert state.critics is not None
    assert state.critic_optimizer is not None
    heads = state.critics.pool.heads
    for i in range(4):
        before = [{k: v.clone() for k, v in h.state_dict().items()} for h in heads]
        steps = [_steps_taken(state.critic_optimizer, h) for h in heads]
        from distillkit.randomness import generator

        drawn = state.critics.pool.draw(4, generator(recipe.run.seed, "panel", i)).heads
        assert 0 < len(drawn) < len(heads)
        train_step(i, run.schedule.spec(i), state)
        for n, head in enumerate(heads):
            same = all(torch.equal(v, before[n][k]) for k, v in head.state_dict().items())
            assert same == (n not in drawn)
            assert all(p.grad is None for p in head.parameters())
            assert _steps_taken(state.critic_optimizer, head) == steps[n] + (n in drawn)


def _steps_taken(optimizer: Any, head: Any) -> int:
    taken = optimizer.state.get(next(head.parameters()), {}).get("step", 0)
    return int(taken)


def test_fresh_noise_leaves_the_warmup_and_the_teachers_pictures_as_they_are(
    tmp_path: Path,
) -> None:
    samples = SamplesConfig(count=4, cache=str(tmp_path / "cache"), noise="fresh")
    warmup = WarmupConfig(student=1, losses=[{"type": "regression"}], critic=1)
    run = trainer(world_recipe(samples=samples, warmup=warmup), tmp_path / "run")
    run.train()
    state, once, again = run.state, range(4), range(4, 8)
    shown = {
        (i, first): show(state, run.schedule.spec(i), positions, None)
        for i in range(3)
        for first, positions in ((True, once), (False, again))
    }
    ids = [state.samples.order.sample_id(p) for p in once]
    assert torch.equal(shown[0, True].x_T_BCHW, state.samples.x_T(ids))
    assert torch.equal(shown[0, True].real_BCHW, shown[2, True].real_BCHW)
    for i in (1, 2):  # critic warm-up, and the game
        drawn = torch.cat([shown[i, True].x_T_BCHW, shown[i, False].x_T_BCHW])
        # The second epoch over the same four samples starts elsewhere.
        assert len(drawn.flatten(1).unique(dim=0)) == 8
        assert not torch.isclose(drawn[:4], shown[0, True].x_T_BCHW).all(dim=(1, 2, 3)).any()


def test_refreshed_heads_start_without_moments_and_with_age_zero(tmp_path: Path) -> None:
    run = trainer(world_recipe(refresh={"type": "random", "fraction": 1.0}), tmp_path)
    train_step(0, run.schedule.spec(0), run.state)
    assert run.state.critic_optimizer is not None
    assert not run.state.critic_optimizer.state
    assert run.state.reset_iteration_N.tolist() == [1] * len(run.state.reset_iteration_N)


def test_frozen_networks_never_move_and_never_hold_gradients(tmp_path: Path) -> None:
    run = trainer(world_recipe(), tmp_path)
    assert run.parts.backbone is not None
    frozen = [*run.parts.teacher.modules(), *run.parts.backbone.modules()]
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in frozen]
    run.train()
    for module, weights in zip(frozen, before, strict=True):
        assert not module.training
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
        assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())


def test_accumulated_micro_batches_equal_one_batch_for_both_players(tmp_path: Path) -> None:
    """2 micro-batches of 4 see the pictures, noise, crops and heads of one batch of 8.

    Compared are the first moments after one iteration, (1 - 0.9) * gradient: Adam's own step
    would turn rounding of near-zero gradients into a full step.
    """
    moments = {}
    adam = {"betas": (0.9, 0.99)}
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3, clip=1.0, **adam), critic=AdamWConfig(lr=1e-2, **adam)
    )
    for run in (RunConfig(batch=8), RunConfig(batch=4, accumulate=2)):
        one = trainer(world_recipe(run=run, optim=optim, refresh=None), tmp_path)
        train_step(19, one.schedule.spec(19), one.state)
        saved = everything(one)
        moments[run.batch] = {k: v for k, v in saved.items() if k.endswith("exp_avg")}
    assert {name.split(".")[0] for name in moments[8]} == {"student-optimizer", "critic-optimizer"}
    for name, moment in moments[8].items():
        torch.testing.assert_close(moments[4][name], moment, rtol=1e-4, atol=1e-7)
    assert all(float(m.abs().max()) > 1e-4 for k, m in moments[8].items() if m.ndim == 4)


def test_nan_stops_the_run_before_it_reaches_the_weights(tmp_path: Path) -> None:
    run = trainer(world_recipe(run=RunConfig(batch=4, checkpoint_every=5)), tmp_path)
    teacher: Any = run.parts.teacher
    sample, calls = teacher.sample, []

    def poisoned(x_T: Tensor, cond: Any, generators: Any) -> Tensor:
        calls.append(1)
        return sample(x_T, cond, generators) * (float("nan") if len(calls) > 12 else 1)

    teacher.sample = poisoned
    with pytest.raises(Diverged, match=r"critic's loss is nan.*last good checkpoint.*critic.lr"):
        run.train()
    assert run.checkpoints.iterations() == [5, 10]
    assert all(bool(t.isfinite().all()) for t in everything(run).values())


def test_critics_that_always_win_stop_the_run() -> None:
    from distillkit.training.divergence import DivergenceMonitor
    from distillkit.training.schedule import IterationSpec

    spec = IterationSpec("1-step", [], True, True, 1, StudentAdamWConfig(lr=1e-3), False, False)
    monitor, won = DivergenceMonitor(), StepMetrics(spec, seen=[{"global-cond t10": 1.0}])
    for _ in range(400):
        monitor.see(won)
    with pytest.raises(Diverged, match=r"they have won.*refresh.fraction"):
        see_often(monitor, won)
    see_often(DivergenceMonitor(), StepMetrics(spec, seen=[{"global-cond t10": 0.8}]))


def see_often(monitor: Any, metrics: StepMetrics) -> None:
    for _ in range(600):
        monitor.see(metrics)


def test_student_trains_every_nth_iteration_when_critics_update_more_often(tmp_path: Path) -> None:
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2), critic_updates=4
    )
    run = trainer(world_recipe(optim=optim), tmp_path)
    run.train()
    rows = read_log(tmp_path / "log.jsonl")
    assert [r["iteration"] for r in rows if r["student"] is not None] == [3, 7, 11, 15, 19]
    assert all(r["critic"] is not None for r in rows)


def test_the_students_step_size_falls_along_half_a_cosine(tmp_path: Path) -> None:
    falls = {"lr": 1e-2, "final_lr_ratio": 0.2}
    optim = OptimConfig(
        student=StudentAdamWConfig(**falls),
        warmup=StudentAdamWConfig(lr=1e-3),
        critic=AdamWConfig(lr=1e-2),
    )
    warmup = WarmupConfig(student=2, losses=[{"type": "regression"}])
    run = trainer(world_recipe(optim=optim, warmup=warmup), tmp_path)
    start, end = run.schedule.start, len(run.schedule)
    assert [run.schedule.spec(i).optim.lr for i in (0, 1)] == [1e-3, 1e-3]
    # 20 iterations in three stages: one curve, halfway to 0.2 in the middle.
    for i, share in ((0, 1.0), (5, 0.2 + 0.8 * (1 + 0.5**0.5) / 2), (10, 0.6)):
        assert run.schedule.spec(start + i).optim.lr == pytest.approx(share * 1e-2)
    assert 0.2e-2 < run.schedule.spec(end - 1).optim.lr < 0.21e-2
    run.train()
    [group] = run.state.student_optimizer.param_groups
    assert group["lr"] == run.schedule.spec(end - 1).optim.lr


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path) -> None:
    recipe = world_recipe(run=RunConfig(trackers=["no-such-tracker"]))
    with pytest.raises(UserError, match=r"run.trackers: 'no-such-tracker' is not installed"):
        make_accelerator(recipe, tmp_path)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one state a process; these tests want their own precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_precision_that_accelerate_refuses_is_named(tmp_path: Path) -> None:
    Accelerator(cpu=True)
    with pytest.raises(UserError, match=r"run.precision: bf16 can't be used here: Accelerator"):
        make_accelerator(world_recipe(run=RunConfig(precision="bf16")), tmp_path)


@pytest.mark.usefixtures("fresh_accelerate")
def test_bf16_trains_both_players_and_keeps_float32_weights(tmp_path: Path) -> None:
    samples = SamplesConfig(count=4, cache=str(tmp_path / "cache"), dtype="float16")
    recipe = world_recipe(run=RunConfig(batch=4, precision="bf16"), samples=samples)
    parts = build_parts(recipe)
    before = {k: v.clone() for k, v in parts.network.module.state_dict().items()}
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    run = Trainer(recipe, RunFolder(tmp_path), parts, accelerator, Callback())
    run.train()
    after = state.published_weights(run.state)
    assert all(v.dtype == torch.float32 for v in after.values())
    assert any(not torch.equal(before[k], after[k]) for k in after)
    rows = read_log(tmp_path / "log.jsonl")
    assert all(r["critic"] == r["critic"] and r["accuracy"] for r in rows)


class Guess:
    """A loss with a network of its own that learns the mean of the student's pictures."""

    def __init__(self) -> None:
        self.bias = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.bias.weight)
        torch.nn.init.zeros_(self.bias.bias)

    def critic(self, batch: Any) -> Tensor:
        return (batch.fake_BCHW.detach().mean() - self.bias(torch.ones(1))).square().mean()

    def student(self, batch: Any) -> Tensor:
        return (batch.fake_BCHW - batch.real_BCHW).square().mean()

    def after_critic_step(self, heads: Any) -> None:
        pass

    def modules(self) -> list[torch.nn.Module]:
        return [self.bias]


class GuessConfig(LossConfig):
    """For the test below."""

    type: Literal["guess"] = "guess"

    def build(self, teacher: Any, student: Any) -> Any:
        return Guess()


def test_a_loss_may_own_a_network_and_need_no_critics(tmp_path: Path) -> None:
    """A first Adam step is lr long: the loss's network moves by optim.aux.lr = 0.5."""
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), networks=AdamWConfig(lr=0.5), critic_updates=2
    )
    recipe = world_recipe(losses=[GuessConfig()], pool=None, backbone=None, refresh=None)
    recipe = recipe.model_copy(update={"optim": optim})
    whole = trainer(recipe, tmp_path / "whole")
    before = everything(whole)
    train_step(0, whole.schedule.spec(0), whole.state)
    after = everything(whole)
    assert abs(float(after["other-0.bias"])) == pytest.approx(0.5, rel=1e-4)
    assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith("student."))
    whole = trainer(recipe, tmp_path / "whole")
    whole.train()
    broken = trainer(recipe, tmp_path / "broken", StopAfter(9, signal.SIGTERM))
    with pytest.raises(Stopped):
        broken.train()
    resumed = trainer(recipe, tmp_path / "broken")
    resumed.train(resume=True)
    assert_same(everything(whole), everything(resumed))
