"""The study's queue: every job once, whatever stops it; and the page that it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from distillkit.errors import UserError
from distillkit.recipe import yaml12
from distillkit.recipe.overrides import Draft
from distillkit.runs.folder import read_log
from tests.distillkit.launch import ROOT, with_examples

STUDIES = [
    file
    for file in sorted((ROOT / "recipes" / "study").glob("*.yml"))
    if "\npage:" in file.read_text()
]
RECIPE = """\
prompts: {type: example}
teacher: {type: example}
student: {type: example, timestep_shift: 500}
backbone: {type: example}
pool: {type: example}
losses: [{type: example}]
refinement: {type: example, iterations: 4}
optim: {student: {lr: 1.0e-3}}
metrics: {type: example, num_images: 8}
run: {batch: 2, threads: 1, checkpoint_every: 5, seed: 0}
"""
STUDY = """\
base: mine.yaml
page: study.md
seeds: [0, 1]
columns: {distance: student_1.distance, unseen: log.held_out, won: won student_1.distance}
arms:
  full: {question: as it is}
  other: {question: with a higher rate, set: [optim.student.lr=0.01], against: full}
  bad: {question: does it break, seeds: [0]}
"""
FAKE = """
import json, pathlib, sys
folder, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
with open(folder.parent / "started", "a") as file:
    file.write(folder.name + "\\n")
folder.mkdir(exist_ok=True)
(folder / "recipe.yaml").write_text("")
if folder.name.startswith("bad"):
    sys.exit("The critics have won")
row = {"student": 1.0, "critic": 2.0, "accuracy": {"a t10": 0.6}, "seconds": 1.0}
(folder / "log.jsonl").write_text(json.dumps(row | {"held_out": {"a t10": 0.7}}) + "\\n")
distance = 0.25 * seed + (0.5 if folder.name.startswith("full") else 0.125)
rows = {"start": 2.5, "teacher": 0.5, "student_1": distance}
rows = {key: {"distance": value} for key, value in rows.items()}
(folder / "metrics.json").write_text(json.dumps(rows))
"""


def draft_alone(path: Path, overrides: Sequence[str] = ()) -> SimpleNamespace:
    """`load_recipe` as far as a study needs it, without a look at the parts."""
    draft = Draft(path, yaml12.parse(path.read_text()))
    for override in overrides:
        draft.override(override)
    return SimpleNamespace(path=path, draft=draft)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module, which imports what lies beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import study

    yield study
    for name in ("study", "study_arms", "study_results"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose runs are over in a moment, and are valid whatever their recipe says."""
    (tmp_path / "mine.yaml").write_text(RECIPE)
    (tmp_path / "arms.yml").write_text(STUDY)
    monkeypatch.setattr(study, "load_recipe", draft_alone)

    def command(job: Any) -> list[str]:
        return [sys.executable, "-c", FAKE, str(job.folder), str(job.seed)]

    monkeypatch.setattr(study.Job, "command", property(command))
    return tmp_path


def run(study: Any, folder: Path, *words: str) -> int:
    found: int = study.main([str(folder / "arms.yml"), "--out", str(folder / "runs"), *words])
    return found


def started(folder: Path) -> list[str]:
    return (folder / "runs" / "started").read_text().split()


def test_every_job_runs_once_and_failures_are_results(study: Any, folder: Path) -> None:
    """Seeds before arms; full 0.5, 0.75; other 0.125, 0.375: mean 0.625 and 0.25, both with
    12.71 * 0.1768 / sqrt(2) = 1.59; of the differences, -0.375 twice, 0. Won: from 2.5 to 0.5 is 2,
    so 1 and 0.875, and 0.188 more.
    """
    assert run(study, folder) == 0
    jobs = ["full-0", "other-0", "bad-0", "full-1", "other-1"]
    assert started(folder) == jobs
    results = {p.stem: json.loads(p.read_text()) for p in (folder / "results").glob("*.json")}
    assert {*results} == {*jobs}
    assert results["bad-0"]["failed"] == "The critics have won"
    assert results["full-1"]["student_1"] == {"distance": 0.75}
    assert results["full-1"]["log"] == {"critic_loss": 2.0, "accuracy": 0.6, "held_out": 0.7}
    assert results["full-1"]["verdict"].startswith("The critics were in the game")

    page = (folder / "study.md").read_text()
    assert "| full | as it is | 2 of 2 | 0.625 ± 1.59 | 0.700 ± 0.00000 | 0.938 ± 0.794 |" in page
    assert (
        "| other | with a higher rate (against full) | 2 of 2 | "
        "0.250 ± 1.59<br>-0.375 ± 0.00000 | 0.700 ± 0.00000<br>+0.00000 ± 0.00000 | "
        "1.12 ± 0.794<br>+0.188 ± 0.00000 |"
    ) in page
    assert "| bad | does it break | 0 of 1, 1 failed | – | – | – |" in page
    assert "- bad, seed 0: The critics have won" in page

    (folder / "study.md").write_text(page.replace("# Study", "# Mine") + "\nWhat it says.\n")
    assert run(study, folder) == 0
    assert started(folder) == jobs, "nothing is run again"
    again = (folder / "study.md").read_text()
    assert again.startswith("# Mine\n")
    assert again.endswith("\nWhat it says.\n")
    assert run(study, folder, "--retry", "--only", "bad") == 0
    assert started(folder) == [*jobs, "bad-0"]


def test_results_alone_let_a_queue_go_on_elsewhere(study: Any, folder: Path) -> None:
    assert run(study, folder, "--seeds", "0") == 0
    assert started(folder) == ["full-0", "other-0", "bad-0"]
    (folder / "runs").rename(folder / "left behind")
    assert run(study, folder, "--workers", "2") == 0
    assert sorted(started(folder)) == ["full-1", "other-1"]


def test_arms_and_seeds_may_be_named_one_by_one(study: Any, folder: Path) -> None:
    run(study, folder, "--only", "other", "--only", "full", "--seeds", "0", "--seeds", "1")
    assert started(folder) == ["full-0", "other-0", "full-1", "other-1"]


def test_studies_keep_their_runs_apart(
    study: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert study.main(["arms.yml", "--only", "full", "--seeds", "0"]) == 0
    assert (folder / "runs" / "study" / "arms" / "full-0").is_dir()


def test_a_job_that_another_queue_has_is_left_alone(study: Any, folder: Path) -> None:
    """Or whose run outlived its queue: 3 says that not all is done."""
    runs = folder / "runs"
    (runs / "other-1").mkdir(parents=True)
    with FileLock(runs / "full-0.lock"), FileLock(runs / "other-1" / ".lock"):
        assert run(study, folder) == 3
    assert started(folder) == ["other-0", "bad-0", "full-1"]
    assert run(study, folder) == 0
    assert started(folder)[3:] == ["full-0", "other-1"]


def test_a_killed_run_is_no_result(
    study: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kill -9, or stopped by a signal (exit code 130)."""
    for end in ("os.kill(os.getpid(), 9)", "os._exit(130)"):
        command = [sys.executable, "-c", f"import os; {end}"]
        monkeypatch.setattr(study.Job, "command", property(lambda job, given=command: given))
        assert run(study, folder, "--only", "full") == 3
        assert not list((folder / "results").glob("*.json"))


def test_a_base_may_change_where_an_arm_has_its_own_value(study: Any, folder: Path) -> None:
    assert run(study, folder, "--only", "full", "other", "--seeds", "0") == 0
    (folder / "mine.yaml").write_text(RECIPE.replace("lr: 1.0e-3", "lr: 2.0e-3"))
    with pytest.raises(UserError, match=r"full-0\.json is the result of another recipe or o"):
        run(study, folder, "--page")
    (folder / "results" / "full-0.json").unlink()
    assert run(study, folder, "--only", "full", "other", "--seeds", "0") == 0
    assert started(folder) == ["full-0", "other-0", "full-0"]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_shipped_page_is_what_the_results_say(study: Any, file: Path) -> None:
    """And each of them is of the recipe that its arm has now."""
    said = study.read_study(file)
    page = (file.parent / said.page).resolve()
    jobs = list(study.jobs_of(said, file, Path("runs")))
    results: dict[str, dict[int, Any]] = {name: {} for name in said.arms}
    for job in jobs:
        if job.is_done():
            results[job.arm][job.seed] = json.loads(job.result.read_text())
    import study_results

    if not page.exists():  # one that was written beside what runs
        return
    made = "\n".join(study_results.tables(said, results, jobs, page.parent))
    assert f"{study_results.BEGIN}\n\n{made}\n{study_results.END}" in page.read_text(), (
        f"run: .venv/bin/python benchmarks/study.py {file.relative_to(ROOT)} --page"
    )


def test_a_result_of_another_recipe_is_refused(study: Any, folder: Path) -> None:
    assert run(study, folder, "--only", "full", "--seeds", "0") == 0
    text = (folder / "arms.yml").read_text().replace("{question: as it is}", (
        "{question: as it is, set: [run.batch=4]}"
    ))  # fmt: skip
    (folder / "arms.yml").write_text(text)
    for words in ((), ("--page",)):
        with pytest.raises(UserError, match=r"full-0\.json is the result of another recipe or o"):
            run(study, folder, *words)


def test_arms_of_another_file_with_overrides_of_all(study: Any, folder: Path) -> None:
    """Each arm's own come last."""
    (folder / "short.yml").write_text(
        "base: mine.yaml\nseeds: [7]\nset: [run.batch=4]\narms: arms.yml\n"
    )
    file = folder / "short.yml"
    jobs = list(study.jobs_of(study.read_study(file), file, folder / "runs"))
    assert {job.name: job.changes for job in jobs} == {
        "full-7": ("run.batch=4", "run.seed=7"),
        "other-7": ("run.batch=4", "optim.student.lr=0.01", "run.seed=7"),
        "bad-0": ("run.batch=4", "run.seed=0"),
    }


def test_what_other_runs_measured_of_teacher_and_start_is_given_to_a_run(
    study: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has its folder; figures of their students are their own."""
    theirs = folder / "runs" / "done" / "figures"
    theirs.mkdir(parents=True)
    for name in ("teacher-a-1", "teacher-halves-a-1", "start-a-2", "student_1-a-3"):
        (theirs / f"{name}.json").write_text(name)
    waits = (
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir(); (folder / 'recipe.yaml').touch()\n"
        "until = time.monotonic() + 20\n"
        "while not (folder / 'figures/start-a-2.json').exists() and time.monotonic() < until:\n"
        "    time.sleep(0.05)\n"
        "sys.exit(3)"
    )
    command = property(lambda job: [sys.executable, "-c", waits, str(job.folder)])
    monkeypatch.setattr(study.Job, "command", command)
    run(study, folder, "--only", "full", "--seeds", "0")
    given = (folder / "runs" / "full-0" / "figures").iterdir()
    assert {f.stem: f.read_text() for f in given} == {
        n: n for n in ("teacher-a-1", "teacher-halves-a-1", "start-a-2")
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STUDY.replace("against: full", "against: all"), "'other' is against 'all', which is no"),
        (STUDY.replace("question: as it is", "set: []"), "arms.full.question"),
        (STUDY + "more: 1\n", "more"),
    ],
)
def test_a_study_that_says_something_wrong(study: Any, folder: Path, text: str, said: str) -> None:
    (folder / "arms.yml").write_text(text)
    with pytest.raises(UserError, match=said):
        run(study, folder)


@pytest.mark.slow
def test_kill_9_of_everything_and_the_study_goes_on(tmp_path: Path) -> None:
    """Real runs of the 8x8 examples: the first is done before the kill and not made again; the
    second is killed in the middle, resumes, and has every iteration once."""
    env = with_examples(tmp_path / "installed")
    (tmp_path / "mine.yaml").write_text(RECIPE)
    arms = "arms: {one: {question: a}, two: {question: b, set: [refinement.iterations=120]}}\n"
    (tmp_path / "arms.yml").write_text("base: mine.yaml\npage: study.md\nseeds: [0]\n" + arms)
    command = [sys.executable, str(ROOT / "benchmarks/study.py"), str(tmp_path / "arms.yml")]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / "runs")],
            env=env,
            start_new_session=True,
        )

    process, log = start(), tmp_path / "runs" / "two-0" / "log.jsonl"
    deadline = time.monotonic() + 400
    while not log.exists() or log.read_bytes().count(b"\n") < 7:
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = (tmp_path / "results" / "one-0.json").stat().st_mtime_ns
    assert not (tmp_path / "results" / "two-0.json").exists()
    assert start().wait(400) == 0
    assert (tmp_path / "results" / "one-0.json").stat().st_mtime_ns == first
    assert [row["iteration"] for row in read_log(log)] == list(range(120))
    assert (tmp_path / "runs" / "two-0.log").read_text().count("Resuming") >= 1
    assert "| two | b | 1 of 1 |" in (tmp_path / "study.md").read_text()


def test_every_arm_of_the_trees_study_is_a_valid_recipe(study: Any, tmp_path: Path) -> None:
    """`jobs_of` validates each arm; the paper's four have five seeds, the others three."""
    file = ROOT / "recipes" / "study" / "arms.yml"
    jobs = list(study.jobs_of(study.read_study(file), file, tmp_path))
    arms = {job.arm for job in jobs}
    ablation = {"full", "no-refresh", "no-pool", "no-multi-scale-dual"}
    assert ablation < arms
    assert {job.arm for job in jobs if job.seed == 4} == ablation | {"regression"}
    assert len(jobs) == 3 * len(arms) + 2 * 5
    short = file.with_name("short.yml")
    assert {job.arm for job in study.jobs_of(study.read_study(short), short, tmp_path)} == arms


def test_the_starts_of_a_fine_tune_differ_in_nothing_else(study: Any, tmp_path: Path) -> None:
    """At one rate and number of updates."""
    file = ROOT / "recipes" / "study" / "style.yml"
    jobs = {
        job.arm: set(job.changes) for job in study.jobs_of(study.read_study(file), file, tmp_path)
    }
    for arm in [arm for arm in jobs if "delta" in arm]:
        for start in ("teacher", "one-step"):
            [field] = jobs[arm.replace("delta", start)] - jobs[arm]
            assert field.startswith("student.start=")
    assert jobs["lora-80"] - jobs["delta-80"] == {"student.train=lora"}
