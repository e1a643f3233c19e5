"""Pictures from a run folder: the right weights, the right noise, and sentences for the rest."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from distillkit.atomic import save_tensors
from distillkit.cli.sample import sample as sample_to_file
from distillkit.errors import UserError
from distillkit.evaluation.sampling import batches, decode, generate, load_student
from distillkit.recipe.load import dump_recipe
from distillkit.runs.checkpoint import Checkpoints
from distillkit.runs.folder import RunFolder
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.models.student import Student
from tests.distillkit.launch import command
from tests.distillkit.world import world_recipe, world_schedule, world_teacher

STAGES = ("start", "1-step", "2-step", "4-step")


def weights(scale: float) -> dict[str, torch.Tensor]:
    return {n: p.detach() * scale for n, p in world_teacher().denoiser.module.named_parameters()}


@pytest.fixture
def run(tmp_path: Path, examples_installed: None) -> Path:
    """A run with a snapshot a stage; stage k's weights are k times the network's first ones."""
    folder = RunFolder(tmp_path / "run")
    folder.create(dump_recipe(world_recipe()), {}, 1)
    for k, name in enumerate(STAGES, 1):
        save_tensors(folder.snapshot(name), weights(k))
    log(folder, "student warm-up", *STAGES[1:])
    folder.student.mkdir()
    return folder.path


def log(folder: RunFolder, *phases: str) -> None:
    """Ten iterations of each phase."""
    folder.log.unlink(missing_ok=True)
    for i in range(10 * len(phases)):
        folder.append_log({"iteration": i, "phase": phases[i // 10]})


def student() -> Student:
    network: Any = world_teacher().denoiser
    return Student(network, world_schedule(), 500)


def test_a_picture_depends_on_its_number_and_not_on_the_batch() -> None:
    samples = TeacherSamples(world_teacher(), SampleOrder(["a", "b", "c"], seed=5))
    together = generate(student(), samples, range(4), steps=4)
    assert not together.requires_grad
    for i in range(4):
        alone = generate(student(), samples, [i], steps=4)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
    other = generate(
        student(), TeacherSamples(world_teacher(), SampleOrder(["a", "b", "c"], seed=6)), [0], 4
    )
    assert (other[0] - together[0]).abs().max() > 0.1


def test_batches_cover_the_count_once() -> None:
    assert batches(5, 2) == [range(2), range(2, 4), range(4, 5)]
    assert batches(4, 4) == [range(4)]


@pytest.mark.parametrize(("name", "scale"), [(None, 4), ("start", 1), ("2-step", 3)])
def test_the_named_snapshot_or_the_last_stage_is_loaded(
    run: Path, name: str | None, scale: int
) -> None:
    # A copied folder has other dates: the log's order counts, not that of the files.
    copy = run.with_name("copy")
    (copy / "student").mkdir(parents=True)
    for file in ("recipe.yaml", "log.jsonl"):
        shutil.copy(run / file, copy / file)
    (copy / "snapshots").mkdir()
    for stage in reversed(STAGES):
        shutil.copyfile(RunFolder(run).snapshot(stage), RunFolder(copy).snapshot(stage))
    _, parts, found = load_student(copy, name)
    for key, p in found.network.module.named_parameters():
        assert torch.equal(p, weights(scale)[key])
        assert not p.requires_grad
    assert found.timestep_shift == 500
    assert not any(p.requires_grad for m in parts.teacher.modules() for p in m.parameters())


def test_weights_come_back_after_others_were_loaded(run: Path) -> None:
    mine = student()
    with mine.weights_restored():
        mine.load_snapshot(RunFolder(run).snapshot("4-step"))
        assert torch.equal(next(mine.network.module.parameters()), weights(4)["weight"])
    assert torch.equal(next(mine.network.module.parameters()), weights(1)["weight"])


def test_the_command_writes_the_students_picture(run: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new" / "ring.png"
    assert command("sample", run, "a ring", "--steps", 2, "--seed", 3, "--out", out) == 0
    assert f"{out}: 1 picture in 2 steps, seed 3" in capsys.readouterr().out
    _, parts, found = load_student(run)
    samples = TeacherSamples(parts.teacher, SampleOrder(["a ring"], seed=3))
    expected = decode(parts.teacher, generate(found, samples, [0], 2))[0]
    with Image.open(out) as image:
        assert (image.format, image.size) == ("PNG", (8, 8))
        red, green, blue = image.getpixel((5, 2))
    pixel = (expected[:, 2, 5] * 255).round().int().tolist()
    assert [red, green, blue] == pixel


def test_several_pictures_make_a_grid(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    sample_to_file(str(run), "a ring", out, count=3)
    with Image.open(out) as image:
        # Two columns and two rows of 8 pixels, with a gap of 4 between them.
        assert image.size == (20, 20)
        assert image.getpixel((15, 15)) == (255, 255, 255)
    assert [p.name for p in tmp_path.glob("*.png")] == ["grid.png"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 5}, r"--steps 5: a student draws in 1 to 4 steps"),
        ({"steps": 0}, r"--steps 0: a student draws in 1 to 4 steps"),
        ({"count": 0}, r"--count 0: at least 1 picture"),
        ({"snapshot": "1-stpe"}, r"no snapshot '1-stpe'; did you mean '1-step'\? snapshots: start"),
        ({"out": Path("a.jpg")}, r"--out a.jpg: the picture is a PNG"),
        ({"noise": Path("a.pt")}, r"--noise a.pt: let the name end in .safetensors"),
        ({"family": "sdxl"}, r"--family sdxl: .*/run is a run, whose recipe says it: leave it out"),
        ({"run": "nowhere"}, r"nowhere is not a run folder: it has no recipe.yaml"),
    ],
)
def test_what_can_be_mended_is_a_sentence(run: Path, changes: Any, sentence: str) -> None:
    arguments = {"run": str(run), "prompt": "a ring", "out": run / "a.png"} | changes
    with pytest.raises(UserError, match=sentence):
        sample_to_file(**arguments)
    assert not (run / "a.png").exists()


def test_a_run_that_is_not_far_enough(run: Path) -> None:
    shutil.rmtree(run / "snapshots")
    with pytest.raises(UserError, match="no weights of the student yet: the first are saved with"):
        load_student(run)


def loaded(run: Path) -> tuple[float, list[str]]:
    """How large the weights are that an unfinished run gives, and what is said of them."""
    told: list[str] = []
    _, _, found = load_student(run, tell=told.append)
    weight = next(found.network.module.parameters())
    first = weights(1)["weight"]
    return round(float((weight / first).mean()), 3), told


def test_an_unfinished_run_gives_its_newest_weights_and_says_the_iteration(run: Path) -> None:
    """Until a stage ends, `start` is the newest snapshot, however old it is."""
    folder = RunFolder(run)
    folder.student.rmdir()
    for name in STAGES[1:]:
        folder.snapshot(name).unlink()
    log(folder, "student warm-up", "1-step")
    checkpoints = Checkpoints(folder.checkpoints, keep=3)
    unfinished = f"{run} is not finished: "
    checkpoints.save(6, {"student": weights(7)})
    assert loaded(run) == (1, [f"{unfinished}this is its snapshot 'start'"])  # of iteration 10
    checkpoints.save(16, {"student": weights(8)})
    assert loaded(run) == (8, [f"{unfinished}these are its weights after iteration 16"])
    checkpoints.save(18, {"student": weights(8), "ema": weights(9)})
    assert loaded(run) == (9, [f"{unfinished}these are its weights after iteration 18"])
    (folder.checkpoints / "00000018" / "ema.safetensors").unlink()
    size, told = loaded(run)
    assert (size, told[-1]) == (8, f"{unfinished}these are its weights after iteration 16")
    assert "00000018 is damaged (ema.safetensors is missing)" in told[0]
    log(folder, "student warm-up", "1-step", "2-step")
    save_tensors(folder.snapshot("1-step"), weights(2))  # written after iteration 20
    assert loaded(run)[0] == 2
    folder.student.mkdir()
    assert loaded(run) == (2, [])


def test_a_finished_run_needs_teacher_and_student_alone(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    """All that trained it has left: pool, refresh, losses, refinement, prompts, an old field."""
    recipe = (run / "recipe.yaml").read_text()
    gone = re.sub(r"type: (dynamic|random|hinge|bottom-up|list)\b", r"type: gone-\1", recipe)
    assert gone.count("type: gone-") == 5
    (run / "recipe.yaml").write_text(gone.replace("requires: []", "requires: [gone]\nold: 1"))
    words = ("sample", run, "a ring", "--out", tmp_path / "a.png")
    for each in (words, ("export", run, "--to", "example")):
        assert command(*each) == 0, capsys.readouterr().err
    assert (tmp_path / "a.png").is_file()
    assert (run / "exports" / "student-example.safetensors").is_file()


@pytest.mark.parametrize("steps", [1, 3])
def test_the_noise_is_saved_where_it_is_asked_for(run: Path, tmp_path: Path, steps: int) -> None:
    file = tmp_path / "noise.safetensors"
    sample_to_file(str(run), "a ring", tmp_path / "a.png", seed=3, count=2, steps=steps, noise=file)
    found = load_file(file)
    _, parts, student = load_student(run)
    samples = TeacherSamples(parts.teacher, SampleOrder(["a ring"], seed=3))
    assert torch.equal(found["x_T"], samples.x_T(range(2)))
    assert found.keys() == ({"x_T"} if steps == 1 else {"x_T", "renoise"})
    drawn = found.get("renoise", torch.zeros(0, 2, 4, 8, 8))
    again = student.rollout(found["x_T"], samples.conditions(range(2)), steps, drawn)
    assert torch.equal(again, generate(student, samples, range(2), steps))


def test_a_damaged_and_a_foreign_snapshot(run: Path) -> None:
    folder = RunFolder(run)
    folder.snapshot("start").write_bytes(b"no safetensors")
    with pytest.raises(UserError, match=r"start.safetensors can't be read"):
        load_student(run, "start")
    save_tensors(folder.snapshot("start"), {"weight": torch.zeros(4, 7, 3, 3)})
    with pytest.raises(UserError, match="holds the weights of another network"):
        load_student(run, "start")


def test_a_place_that_can_not_be_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file is a file, not a folder"):
        sample_to_file(str(run), "a ring", tmp_path / "file" / "new" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        sample_to_file(str(run), "a ring", tmp_path / "folder.png")

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(UserError, match=r"Could not write .*a.png: Permission denied"):
        sample_to_file(str(run), "a ring", tmp_path / "a.png")
    assert not list(tmp_path.glob("*a.png*"))
