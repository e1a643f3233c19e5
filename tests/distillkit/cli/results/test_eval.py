"""`distillkit eval` on a run of the examples: 8x8 pictures, milliseconds each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from distillkit import testing
from distillkit.atomic import save_tensors
from distillkit.cli import main
from distillkit.evaluation import judge
from distillkit.evaluation.evaluate import evaluate
from distillkit.evaluation.pictures import PictureFolder
from distillkit.examples.metrics import ExampleMetrics, ExampleMetricsConfig
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from distillkit.training.build import build_models
from tests.distillkit.launch import told

pytestmark = pytest.mark.usefixtures("examples_installed")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run: its start draws noise, its student less of it."""
    recipe = testing.recipe(metrics=ExampleMetricsConfig(num_images=6, seed=70))
    folder = RunFolder(tmp_path / "run")
    folder.create(dump_recipe(recipe), {}, 1)
    parts = build_models(recipe)
    own = dict(parts.network.module.named_parameters())
    for k, name in enumerate(("start", "mixed"), start=1):
        save_tensors(folder.snapshot(name), {n: p.detach() / k for n, p in own.items()})
        os.utime(folder.snapshot(name), (k, k))
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\na dog\na fish\n")
    return path


def command(run: RunFolder, *options: Any) -> None:
    main(["eval", str(run.path), "--steps", "1,2", *map(str, options)])


def table(run: RunFolder) -> Any:
    return json.loads((run.path / "eval" / "metrics.json").read_text())


def finished(run: RunFolder, *options: Any, capsys: pytest.CaptureFixture[str]) -> str:
    return told(0, "eval", run.path, "--steps", "1,2", *options, capsys=capsys)


def files(folder: Path) -> dict[str, int]:
    return {f.relative_to(folder).as_posix(): f.stat().st_mtime_ns for f in folder.rglob("0*.png")}


def test_a_run_is_judged_on_its_own_prompts_and_its_own_numbers_stay(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.metrics.write_text("{}")
    monkeypatch.setattr("sys.argv", ["/usr/bin/distillkit", "eval", "mine"])
    out = finished(run, "--metrics", "example", "--teacher", capsys=capsys)
    assert run.metrics.read_text() == "{}"
    found = table(run)
    assert list(found)[:4] == ["teacher", "start", "student_1", "student_2"]
    assert found["start"]["num_images"] == 6
    assert found["made_with"]["seed"] == 70
    assert found["made_with"]["command"] == ["distillkit", "eval", "mine"]
    assert found["made_with"]["snapshots"]["student_1"] == run.snapshots()[-1]
    # What a run finds at its end, but for the files' 8 bits.
    recipe = testing.recipe(
        metrics=ExampleMetricsConfig(num_images=6, seed=70),
    )
    whole = evaluate(recipe, build_models(recipe), RunFolder(run.path))
    for name in ("brightness", "distance"):
        assert found["start"][name] == pytest.approx(whole["start"][name], abs=2e-3)
    assert "student, 2 steps" in out
    md = (run.path / "eval" / "table.md").read_text().splitlines()
    assert md[0] == "| Model | Steps | distance (↓) | brightness (≈ teacher) |"
    assert [line.split(" | ")[:2] for line in md[2:]] == [
        ["| teacher", "–"], ["| start", "1"], ["| student", "1"], ["| student", "2"],
    ]  # fmt: skip
    names = sorted(f.stem for f in (run.path / "eval" / "grids").glob("*.png"))
    assert names == ["compare", "start", "student_1", "student_2", "teacher"]


def test_pictures_that_are_there_are_not_drawn_again_and_the_rest_is_the_same(
    run: RunFolder, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--prompts", prompts, "--per-prompt", 3, "--batch", 2)
    finished(run, *options, capsys=capsys)
    folder = run.path / "eval" / "pictures"
    before, content = files(folder), {f: f.read_bytes() for f in folder.rglob("0*.png")}
    assert len(before) == 3 * 9
    gone = [folder / "student_1" / "00000002.png", folder / "student_2" / "00000008.png"]
    for file in gone:
        file.unlink()
    finished(run, *options, capsys=capsys)
    after = files(folder)
    assert {f for f in before if before[f] != after[f]} == {
        "student_1/00000002.png", "student_2/00000008.png",
    }  # fmt: skip
    assert {f: f.read_bytes() for f in folder.rglob("0*.png")} == content
    # A longer set continues the shorter one.
    finished(run, "--prompts", prompts, "--per-prompt", 4, "--batch", 2, capsys=capsys)
    assert all(files(folder)[f] == time for f, time in after.items())


def test_pictures_of_other_weights_or_seeds_are_replaced(
    run: RunFolder, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(run, "--prompts", prompts, capsys=capsys)
    start = (run.path / "eval/pictures/start/00000000.png").stat().st_mtime_ns
    weights = dict(build_models(testing.recipe()).network.module.named_parameters())
    save_tensors(run.snapshot("mixed"), {n: p.detach() / 7 for n, p in weights.items()})
    out = finished(run, "--prompts", prompts, capsys=capsys)
    assert "student_1: 3 pictures of other weights, configs, prompts or seeds are replaced" in out
    assert "start:" not in out
    assert (run.path / "eval/pictures/start/00000000.png").stat().st_mtime_ns == start
    out = finished(run, "--prompts", prompts, "--seed", 5, capsys=capsys)
    assert "start: 3 pictures of other" in out


def test_rows_that_did_not_change_are_not_measured_again(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    sound = ExampleMetrics.compute

    def counted(self: Any, images: Any, prompts: Any, teacher: Any) -> Any:
        calls.append(len(images))
        return sound(self, images, prompts, teacher)

    monkeypatch.setattr(ExampleMetrics, "compute", counted)
    options = ("--metrics", "example", "--teacher")
    finished(run, *options, capsys=capsys)
    assert calls == [6] * 4
    first = table(run)
    finished(run, *options, capsys=capsys)
    assert calls == [6] * 4
    assert table(run) == first
    own = dict(build_models(testing.recipe()).network.module.named_parameters())
    save_tensors(run.snapshot("start"), {n: p.detach() / 5 for n, p in own.items()})
    os.utime(run.snapshot("start"), (1, 1))
    finished(run, *options, capsys=capsys)
    assert calls == [6] * 5
    assert table(run)["student_1"] == first["student_1"]
    # Other fields of the part: every row again.
    finished(run, *options, "--set", "example.subject=a moon", capsys=capsys)
    assert calls == [6] * 9


def test_the_runs_own_evaluation_goes_on_where_a_kill_left_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = testing.recipe(metrics=ExampleMetricsConfig(num_images=6, seed=70))
    sound, calls = ExampleMetrics.compute, []

    def breaks(self: Any, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sound(self, *given)

    monkeypatch.setattr(ExampleMetrics, "compute", breaks)
    with pytest.raises(KeyboardInterrupt):
        evaluate(recipe, build_models(recipe), run)
    again = evaluate(recipe, build_models(recipe), run)
    # The teacher and the start were measured before; three rows of the student are left.
    assert len(calls) == 3 + 3
    assert all((run.grids / f"{key}.png").is_file() for key in ("teacher", "start", "compare"))
    fresh = RunFolder(run.path.parent / "fresh")
    for name in ("start", "mixed"):
        fresh.snapshot(name).parent.mkdir(parents=True, exist_ok=True)
        fresh.snapshot(name).write_bytes(run.snapshot(name).read_bytes())
    assert evaluate(recipe, build_models(recipe), fresh) == again
    compare = (run.grids / "compare.png").read_bytes()
    assert (fresh.grids / "compare.png").read_bytes() == compare


def test_two_processes_share_the_drawing(run: RunFolder, prompts: Path) -> None:
    """Each draws its batches of every row; between them nothing is left or drawn twice."""
    from distillkit.evaluation.source import open_source

    written: list[list[int]] = []

    class Process:
        device, num_processes = "cpu", 2

        def __init__(self, rank: int, turn: list[Any]) -> None:
            self.process_index, self.is_main_process, self.turn = rank, rank == 0, turn

        def wait_for_everyone(self) -> None:
            """Processes run one after the other here: the second sees what was missing at first."""

    def draw(rank: int, out: Path) -> None:
        source = open_source(str(run.path), [1])
        made = judge.Judge(source, out, ["a", "b"], 3, 5, 2, Process(rank, []))
        made.draw(False)

    for rank in (0, 1):
        draw(rank, run.path.parent / f"rank{rank}")
    for rank in (0, 1):
        folder = run.path.parent / f"rank{rank}" / "pictures" / "student_1"
        written.append(sorted(int(f.stem) for f in folder.glob("0*.png")))
    assert written == [[0, 1, 4], [2, 3]]


def test_benchmarks_get_the_folders_that_their_judges_read(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"tag": "counting", "prompt": text}) for text in ("two cats", "a dog")]
    meta = tmp_path / "evaluation_metadata.jsonl"
    meta.write_text("\n".join(lines) + "\n")
    finished(run, "--prompts", meta, "--benchmark", "geneval", capsys=capsys)
    folder = run.path / "eval" / "geneval" / "student_2"
    assert sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()) == [
        *("00000/metadata.jsonl", *(f"00000/samples/{n:04d}.png" for n in range(4))),
        *("00001/metadata.jsonl", *(f"00001/samples/{n:04d}.png" for n in range(4))),
    ]
    assert json.loads((folder / "00001/metadata.jsonl").read_text())["prompt"] == "a dog"
    # The picture in a prompt's folder is one that was drawn for this prompt.
    from distillkit.samples.order import SampleOrder

    order = SampleOrder(["two cats", "a dog"], 0)
    number = next(n for n in range(8) if order.prompt(n) == "a dog")
    drawn = run.path / "eval/pictures/student_2" / f"{number:08d}.png"
    assert (folder / "00001/samples/0000.png").read_bytes() == drawn.read_bytes()

    (tmp_path / "dpg").mkdir()
    (tmp_path / "dpg" / "COCOval2014_7.txt").write_text("a cat on a mat\n")
    finished(run, "--prompts", tmp_path / "dpg", "--benchmark", "dpg", capsys=capsys)
    whole = Image.open(run.path / "eval/dpg/student_1/COCOval2014_7.png")
    assert whole.size == (16, 16)
    drawn = PictureFolder(run.path / "eval/pictures/student_1", range(4))
    corner = whole.crop((8, 0, 16, 8))
    assert corner.tobytes() == Image.open(drawn.path(1)).convert("RGB").tobytes()


def test_prompts_stand_in_the_field_that_is_named(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text('{"caption": "a cat"}\n{"caption": "a dog"}\n')
    options = ("--prompts", file, "--metrics", "example", "--teacher")
    said = " ".join(told(2, "eval", run.path, *options, capsys=capsys).split())
    assert "no field 'prompt'; fields: caption. Name the one that holds the prompt" in said
    finished(run, *options, "--field", "caption", "--set", "example.num_images=2", capsys=capsys)
    assert table(run)["student_1"]["num_images"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "5"], "--steps 5: a student draws in 1 to 4 steps"),
        (["--steps", "one"], "--steps one: whole numbers separated by commas, such as 1,2,4"),
        (["--metrics", "exampel"], "--metrics exampel: no metrics 'exampel'; did you mean 'exam"),
        (["--metrics", "example"], "--metrics example: compares with the teacher's pictures; add"),
        (["--set", "example.subject=x"], "--set example.subject=x: write METRIC.FIELD=VALUE;"),
        (["--count", "0"], "--count 0: at least 1"),
        (["--family", "sdxl"], "is a run, whose recipe says it: leave it out"),
        (["--prompts", "x.csv"], "--prompts x.csv: the name of a file of prompts ends in .txt,"),
        (["--prompts", "a.txt", "--field", "x"], "--field x: a.txt has no fields, but one prompt"),
        (["--benchmark", "geneval"], "--benchmark geneval: give its prompts by --prompts"),
        (["--benchmark", "x", "--prompts", "a.txt"], "--benchmark x: known are geneval and dpg"),
        (["--metrics", "example", "--count", "1"], "num_images: "),
    ],
)
def test_what_it_refuses(
    run: RunFolder, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in told(2, "eval", run.path, *options, capsys=capsys)
    assert not (run.path / "eval").exists()


def test_a_folder_that_holds_other_files_is_left_alone(
    run: RunFolder, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = run.path / "eval" / "pictures" / "start" / "00000000.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    said = told(2, "eval", run.path, "--prompts", prompts, capsys=capsys)
    assert "holds files and no index.json: pictures are not mixed with others" in said
    assert mine.read_bytes() == b"mine"


def test_pictures_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path, range(3))
    images = torch.arange(3 * 3 * 2 * 2).reshape(3, 3, 2, 2) / 255
    for number, image in enumerate(images):
        folder.write(number, image)
    assert torch.equal(folder[0:3], images)
    assert torch.equal(folder.part(slice(1, 3))[0:1], images[1:2])
    assert folder.missing() == []
