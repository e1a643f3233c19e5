"""The loop: every iteration, its log, previews, snapshots, checkpoints; signals and resume."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from distillkit.atomic import remove_unfinished, save_tensors, write_text
from distillkit.recipe.compare import every_change
from distillkit.recipe.load import dump_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.runs.checkpoint import Checkpoints
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import SampleCache, pictures_cache, training_cache
from distillkit.samples.pairs import TeacherSamples
from distillkit.samples.pictures import PictureLatents
from distillkit.training.build import Parts, build_part, make_schedule, make_train_state
from distillkit.training.callbacks import Callback, Stopped
from distillkit.training.divergence import DivergenceMonitor
from distillkit.training.metrics import StepMetrics
from distillkit.training.models.compiled import running_eagerly
from distillkit.training.models.distributed import is_sharded
from distillkit.training.models.held_out import HeldOutPairs
from distillkit.training.models.student import Student
from distillkit.training.processes import check_agreement, digest_of
from distillkit.training.schedule import TrainSchedule
from distillkit.training.state import load_state, published_weights, state_tensors
from distillkit.training.step import train_step
from distillkit.training.train_state import TrainState


@dataclass
class Trainer:
    """A run: its recipe, its folder, its parts on their device. Writes nothing until `train`."""

    recipe: Recipe
    folder: RunFolder
    parts: Parts
    accelerator: Any
    callback: Callback
    preview: Callable[[TrainState, int], None] | None = None
    """Draws a preview after an iteration, on all processes; None draws none."""
    held_out: HeldOutPairs | None = None
    """What critics and student are measured on when a preview is due; None measures nothing."""

    def __post_init__(self) -> None:
        keep = self.recipe.run.keep_checkpoints
        self.state: TrainState = make_train_state(self.recipe, self.parts, self.accelerator)
        self.schedule: TrainSchedule = make_schedule(self.recipe, self.parts)
        self.monitor = DivergenceMonitor()
        self.checkpoints = Checkpoints(self.folder.checkpoints, keep, self.callback.on_message)

    def train(self, resume: bool = False) -> TrainState:
        """All iterations that are left. Raises `Stopped` after a signal, `Diverged` on NaN."""
        with self.folder.locked() if self.accelerator.is_main_process else nullcontext():
            return self._train(resume)

    def _train(self, resume: bool) -> TrainState:
        caches = self._caches()  # one that will not do is told before there is a run
        if self.accelerator.is_main_process:
            self._open_folder(resume)
        self.accelerator.init_trackers("distillkit")
        start = self._resume() if resume else 0
        self._fill(*caches)
        with _signals() as self.state.asked:
            for i in range(start, len(self.schedule)):
                metrics = self._iteration(i)
                stop = self._stops(metrics)
                if i + 1 == len(self.schedule):
                    self.state.learning.finish(metrics.spec)
                    if doubt := self.state.learning.doubt():
                        self.callback.on_message(doubt)
                due = (i + 1) % self.recipe.run.checkpoint_every == 0
                if due or stop or i + 1 == len(self.schedule):
                    self._checkpoint(i + 1)
                if stop and i + 1 < len(self.schedule):
                    raise Stopped(i + 1)
        return self.state

    def _stops(self, metrics: StepMetrics) -> bool:
        """Whether the run stops after this iteration: asked once, since a signal may come at any
        moment. Of several processes all must stop, so it is what they exchanged in the iteration;
        a signal that came later stops them after the next one."""
        return metrics.stop if self.accelerator.num_processes > 1 else self.state.asked()

    def _open_folder(self, resume: bool) -> None:
        """Clear what killed processes left; write what made the run, or compare with it."""
        if freed := remove_unfinished(self.folder.path):
            self.callback.on_message(f"Removed {freed / 1e6:,.1f} MB of unfinished files")
        plugins = {o.plugin: f"{o.distribution} {o.version}" for o in installed().plugins}
        text = dump_recipe(self.recipe)
        if not resume:
            pictures = self.state.slices.total
            self.folder.create(text, plugins, torch.get_num_threads(), pictures)
            return
        if not self.folder.recipe.exists() or every_change(self.folder.recipe, self.recipe):
            write_text(self.folder.recipe, text)  # as it goes on: the next stop's hint names it
        if changed := self.folder.changed_since(plugins):
            self.callback.on_message(
                f"Changed since the run began: {', '.join(changed)}. The run continues, and may "
                "differ from an unbroken one."
            )

    def step(self, i: int) -> StepMetrics:
        """Iteration `i` alone, without log, previews or checkpoints."""
        return train_step(i, self.schedule.spec(i), self.state)

    def _iteration(self, i: int) -> StepMetrics:
        began = time.perf_counter()
        if i == self.schedule.start:
            self._snapshot("start")
        metrics = self.step(i)
        if advice := self.monitor.update(metrics):
            self.callback.on_message(advice)
        seconds = time.perf_counter() - began
        due = (i + 1) % self.recipe.run.preview_every == 0
        unseen: dict[str, dict[str, float]] = {}
        if self.held_out is not None and due and metrics.spec.trains_critic:
            with running_eagerly(self.recipe.run):
                unseen = self.held_out.measure(i, self.state)
        if self.accelerator.is_main_process:
            heads = {c.name or "heads": c.life() for c in self.state.critics}
            self.folder.append_log(_row(i, metrics, unseen, heads, seconds))
            self.accelerator.log(_scalars(metrics, unseen), step=i)
        self.callback.on_iteration(i, len(self.schedule), metrics, seconds)
        if metrics.spec.ends_stage:
            self._snapshot(metrics.spec.phase)
        if self.preview and due:
            with running_eagerly(self.recipe.run):
                self.preview(self.state, i + 1)
        return metrics

    def finished_student(self) -> Student:
        """The student with its published weights, on this process, without a wrapper: it computes
        in float32 as everywhere that the weights are loaded, and not in the run's precision."""
        network, recipe = self.state.student.network, self.recipe
        if is_sharded(network.module):
            network = build_part(recipe.student, self.parts.teacher)
            network.module.to(self.accelerator.device).requires_grad_(False)
        else:
            bare = self.accelerator.unwrap_model(network.module, keep_fp32_wrapper=False)
            network.module = bare
        student = replace(self.state.student, network=network)
        last_stage = self.schedule.spec(len(self.schedule) - 1).phase
        student.load_snapshot(self.folder.snapshot(last_stage))
        return student

    def _snapshot(self, name: str) -> None:
        weights = published_weights(self.state)
        if self.accelerator.is_main_process:
            save_tensors(self.folder.snapshot(name), weights)

    def _checkpoint(self, iteration: int) -> None:
        if self.accelerator.num_processes > 1:
            # Heads are whole on every process, and must be the same ones.
            weights = (p for critic in self.state.critics for p in critic.pool.heads.parameters())
            check_agreement(self.accelerator, "the heads' weights", digest_of(*weights))
        tensors = state_tensors(self.state, self.monitor)
        if self.accelerator.is_main_process:
            self.checkpoints.save(iteration, tensors)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        found = self.checkpoints.latest()
        iteration, saved = found if found else (0, None)
        if saved is not None:
            load_state(self.state, self.monitor, saved)
        if self.accelerator.is_main_process:
            self.folder.rewind_log(iteration)
        self.callback.on_resume(iteration)
        return iteration

    def fill_caches(self) -> None:
        """Make what the caches miss, and read samples from them: `train` does so itself."""
        self._fill(*self._caches())

    def _caches(self) -> tuple[SampleCache | None, SampleCache | None]:
        """Of the teacher's samples, and of real pictures' latents."""
        pictures = self.state.pictures
        latents = pictures_cache(self.recipe, pictures) if pictures is not None else None
        return training_cache(self.recipe, self.state.samples), latents

    def _fill(self, cache: SampleCache | None, latents: SampleCache | None) -> None:
        if cache is not None:
            tell = partial(self.callback.on_progress, "teacher samples")
            fill_together(cache, self.state.samples, self.accelerator, tell)
            self.state.samples = replace(self.state.samples, cache=cache)
        pictures = self.state.pictures
        if pictures is not None and latents is not None:
            tell = partial(self.callback.on_progress, "real pictures")
            fill_together(latents, pictures, self.accelerator, tell)
            self.state.pictures = replace(pictures, cache=latents)


def fill_together(
    cache: SampleCache,
    samples: TeacherSamples | PictureLatents,
    accelerator: Any,
    tell: Callable[[int, int], None],
) -> None:
    """Make what is missing, each process its share; returns when all of it is there."""
    rank, world = accelerator.process_index, accelerator.num_processes
    missing = cache.missing()
    done = cache.count - sum(map(len, missing))
    accelerator.wait_for_everyone()
    for shard in cache.fill(samples, missing[rank::world]):
        done = min(done + len(shard) * world, cache.count)
        tell(done, cache.count)
    accelerator.wait_for_everyone()


Named = Mapping[str, Mapping[str, float]]
"""Measurements by kind and name."""


def _row(
    i: int, metrics: StepMetrics, unseen: Named, heads: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    spec = metrics.spec
    return {
        "iteration": i,
        "phase": spec.phase,
        "steps": spec.steps,
        "student": metrics.student if spec.trains_student else None,
        "critic": metrics.critic if spec.trains_critic else None,
        "accuracy": _rounded(metrics.accuracy),
        **({"silent": round(metrics.silent, 4)} if metrics.silent is not None else {}),
        **{k: _rounded(v) for k, v in {**_details(metrics), **unseen}.items() if v},
        **({"heads": dict(heads)} if spec.trains_critic and heads else {}),
        "seconds": round(seconds, 4),
    }


def _details(metrics: StepMetrics) -> dict[str, Mapping[str, float]]:
    """Measurements by name: of views, of players, of losses."""
    norms = {player: metrics.norm(player) for player in ("critic", "student")}
    shares = {"ratio": metrics.adversarial_ratio, "cosine": metrics.adversarial_cosine}
    return {
        "accuracy": metrics.accuracy,
        "margin": metrics.margin,
        "spread": metrics.spread,
        "gradient": {player: norm for player, norm in norms.items() if norm is not None},
        "pull": metrics.pulls,
        "direction": metrics.directions,
        "adversarial": {name: value for name, value in shares.items() if value is not None},
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """To four significant digits, which keeps the log small."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def _scalars(metrics: StepMetrics, unseen: Named) -> dict[str, float]:
    details = {**_details(metrics), **unseen}.items()
    values = {f"{what}/{name}": value for what, named in details for name, value in named.items()}
    if metrics.spec.trains_student:
        values["loss/student"] = metrics.student
    if metrics.spec.trains_critic:
        values["loss/critic"] = metrics.critic
    return values


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C ask for a stop after the iteration; a second one interrupts.

    In another thread than the main one Python hears no signals, and nobody asks.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
