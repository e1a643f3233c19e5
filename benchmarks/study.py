"""A study: arms x seeds as a queue that any stop can resume, and a page of tables from its results.

    python benchmarks/study.py recipes/study/arms.yml [--workers 2 | --gpus 0 1] [--only ARM ...]

An arm is a recipe with overrides and the question that it answers:

    base: shapes.yaml                  # a recipe beside this file, or one by name
    results: ../../docs/study          # small JSON files, to be committed; beside this file
    page: ../../docs/study.md          # its tables; the text around them stays
    seeds: [0, 1, 2]
    set: [refinement.iterations=200]   # overrides of every arm
    columns:                           # title: place in a result
      Fréchet, 1 step: student_1.frechet_teacher
      critics right, unseen pairs: log.held_out
      won of the missing captions: won student_1.caption_accuracy
    arms:
      full: {question: the method as it is, seeds: [0, 1, 2, 3, 4]}
      no-refresh:
        question: does pool refresh matter?
        set: ["refresh={type: never}"]
        against: full                  # paired differences, seed by seed

A job (one arm, one seed) is done when its result is there, so a queue goes on wherever results are:
after kill -9, on another machine that has the results alone, or on several that share the folder of
runs, where a lock keeps two from one job. A job that was stopped resumes from its checkpoint, and
figures of teacher and start that a run beside it has measured are not measured again. One
that fails by itself (critics that won, say) is a result too, and reported; `--retry` tries again.
Seeds come before arms: every arm has its first seed before any has its second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from study_arms import Study, read_study
from study_results import collect, write_page

from distillkit import load_recipe
from distillkit.atomic import write_text
from distillkit.errors import UserError

STOPPED = (130, 143)
"""Exit codes of a run that a signal asked to stop: it goes on another time."""


@dataclass(frozen=True)
class Job:
    """One arm with one seed."""

    arm: str
    seed: int
    recipe: Path
    changes: tuple[str, ...]
    runs: Path
    results: Path

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def result(self) -> Path:
        return self.results / f"{self.name}.json"

    @property
    def identity(self) -> str:
        """A digest of what was asked for: a result of another recipe is none of this arm.

        Of recipe and overrides together, so that a base may change where an arm has its own value.
        """
        value = load_recipe(self.recipe, self.changes).draft.value
        asked = json.dumps(value, sort_keys=True, default=str)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    @property
    def command(self) -> list[str]:
        words = [sys.executable, "-m", "distillkit", "run", str(self.recipe)]
        words += ["--out", str(self.folder)]
        for change in self.changes:
            words += ["--set", change]
        return [*words, "--resume"] if (self.folder / "recipe.yaml").exists() else words

    def is_done(self, retry: bool = False) -> bool:
        """Whether its result is there. Raises `UserError` for one of another recipe."""
        if not self.result.exists():
            return False
        found = json.loads(self.result.read_text(encoding="utf-8"))
        if found.get("identity") != self.identity:
            raise UserError(
                f"{self.result} is the result of another recipe or other overrides than arm "
                f"'{self.arm}' has; remove it, or name the arm anew"
            )
        return not (retry and "failed" in found)


@dataclass
class Running:
    """A job at work."""

    job: Job
    process: subprocess.Popen[bytes]
    lock: FileLock
    slot: int
    shared: bool = False
    """Whether it has been given what other runs have measured."""

    def share(self) -> None:
        """Give it the figures of teacher and start from the runs beside it.

        Their names tell what they depend on, so those of others are left unread.
        """
        if self.shared or not (self.job.folder / "recipe.yaml").exists():
            return
        self.shared, own = True, self.job.folder / "figures"
        for row in ("teacher", "start"):
            for file in self.job.runs.glob(f"*/figures/{row}-*.json"):
                if not (own / file.name).exists():
                    write_text(own / file.name, file.read_text(encoding="utf-8"))


@dataclass
class Queue:
    """Starts jobs while there are free slots and jobs that nobody has."""

    jobs: Sequence[Job]
    slots: int
    gpus: Sequence[str] = ()
    retry: bool = False
    poll: float = 0.5
    running: list[Running] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    """Jobs that were ended here, whatever came of them."""
    stopping: bool = False

    def run(self) -> bool:
        """Until nothing is left that could be started here; returns whether all jobs are done."""
        while True:
            self._reap()
            while not self.stopping and len(self.running) < self.slots and self._start_next():
                pass
            for each in self.running:
                each.share()
            if not self.running:
                return all(job.is_done() for job in self.jobs)
            time.sleep(self.poll)

    def stop(self, *_: Any) -> None:
        """Ask all runs to save and stop."""
        self.stopping = True
        for each in self.running:
            each.process.terminate()

    def _start_next(self) -> bool:
        for job in self.jobs:
            if job.name in self.tried or job.is_done(self.retry):
                continue
            lock = self._claim(job)
            if lock is not None:
                self._start(job, lock)
                return True
        return False

    def _claim(self, job: Job) -> FileLock | None:
        """The job's lock, unless another queue has it, or a run of it outlived its queue."""
        lock = FileLock(job.runs / f"{job.name}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            if job.is_done(self.retry):  # by another queue, in this moment
                lock.release()
                return None
            if not job.folder.exists():
                return lock
            with FileLock(job.folder / ".lock").acquire(timeout=0):
                return lock
        lock.release()
        return None

    def _start(self, job: Job, lock: FileLock) -> None:
        slot = min(set(range(self.slots)) - {each.slot for each in self.running})
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot]
        said = job.runs / f"{job.name}.log"
        print(f"{'resumed' if '--resume' in job.command else 'started'}  {job.name}", flush=True)
        with said.open("ab") as output:
            process = subprocess.Popen(
                job.command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self.running.append(Running(job, process, lock, slot))

    def _reap(self) -> None:
        for each in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(each)
            self._end(each.job, each.process.returncode)
            each.lock.release()

    def _end(self, job: Job, code: int) -> None:
        """A result of a run that finished or failed by itself; a killed one stays open."""
        self.tried.add(job.name)
        if code < 0 or code in STOPPED:
            print(f"stopped  {job.name}", flush=True)
            return
        found: dict[str, Any] = {"arm": job.arm, "seed": job.seed, "identity": job.identity}
        if code == 0:
            found |= collect(job.folder)
            print(f"finished {job.name}", flush=True)
        else:
            lines = (job.runs / f"{job.name}.log").read_text(errors="replace").splitlines()
            found |= {"failed": " ".join(lines[-3:])[-600:], "exit_code": code}
            print(f"failed   {job.name}: {found['failed']}", flush=True)
        write_text(job.result, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def jobs_of(study: Study, file: Path, runs: Path) -> Iterator[Job]:
    """Seed by seed, in the order of the arms. Raises `UserError` for a recipe that is not valid."""
    results = (file.parent / study.results).resolve()
    for place in range(max(len(arm.seeds or study.seeds) for arm in study.arms.values())):
        for name, arm in study.arms.items():
            seeds = arm.seeds or study.seeds
            if place >= len(seeds):
                continue
            named = arm.recipe or study.base
            recipe = file.parent / named
            recipe = recipe if recipe.is_file() else load_recipe(named).path
            changes = (*study.set, *arm.set, f"run.seed={seeds[place]}")
            if place == 0:
                load_recipe(recipe, changes)
            yield Job(name, seeds[place], recipe, changes, runs, results)


def main(words: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("study", type=Path)
    options.add_argument("--out", type=Path, help="folder of the runs; runs/study/NAME by default")
    options.add_argument("--workers", type=int, default=1, help="runs side by side")
    options.add_argument("--gpus", nargs="+", default=[], help="a run on each of these devices")
    options.add_argument(
        "--only", nargs="+", action="extend", default=[], help="arms to run; the page has all"
    )
    options.add_argument(
        "--seeds", nargs="+", action="extend", type=int, default=[], help="seeds to run"
    )
    options.add_argument("--retry", action="store_true", help="run failed jobs again")
    options.add_argument("--page", action="store_true", help="write the page, and run nothing")
    given = options.parse_args(words)
    study = read_study(given.study)
    # Two studies may have arms of one name.
    given.out = given.out or Path("runs/study") / given.study.stem
    if unknown := [name for name in given.only if name not in study.arms]:
        raise UserError(f"no arm '{unknown[0]}'; arms: {', '.join(study.arms)}")
    given.out.mkdir(parents=True, exist_ok=True)
    jobs = list(jobs_of(study, given.study, given.out.resolve()))
    jobs[0].results.mkdir(parents=True, exist_ok=True)
    chosen = [
        job
        for job in jobs
        if job.arm in (given.only or study.arms) and job.seed in (given.seeds or [job.seed])
    ]
    done = True
    if not given.page:
        queue = Queue(chosen, len(given.gpus) or given.workers, given.gpus, given.retry)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, queue.stop)
        done = queue.run()
    if study.page is not None:
        write_page(given.study.parent / study.page, given.study, study, jobs)
    return 0 if done else 3


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
