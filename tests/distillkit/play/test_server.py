"""The page's addresses, through starlette's own client, on a run of the examples."""

from __future__ import annotations

import base64
import io
import shlex
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distillkit import api
from distillkit.atomic import save_tensors
from distillkit.evaluation.grids import save_image, square
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from tests.distillkit.launch import command
from tests.distillkit.world import world_recipe, world_teacher

pytest.importorskip("starlette", reason="the page needs the extra `ui`")
pytest.importorskip("httpx2", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from distillkit.play import server
from distillkit.play.models import PlayModel

RED = {"prompt": "a red ring", "seed": "7"}


@pytest.fixture
def run(tmp_path: Path, examples_installed: None) -> Path:
    """A run that is not finished: its start, and one stage."""
    folder = RunFolder(tmp_path / "a run")
    folder.create(dump_recipe(world_recipe()), {}, 1)
    for k, name in enumerate(("start", "1-step"), 1):
        own = world_teacher().denoiser.module.named_parameters()
        save_tensors(folder.snapshot(name), {n: p.detach() * k for n, p in own})
    return folder.path


def client(*models: Any) -> TestClient:
    return TestClient(server.make_app(models), base_url="http://127.0.0.1")


def png(answer: Any) -> bytes:
    head, _, data = answer.json()["picture"].partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).tobytes()


def test_every_row_draws_and_says_which_command_makes_it(run: Path, tmp_path: Path) -> None:
    page = client(PlayModel.open(str(run)))
    about = page.get("/about").json()
    assert [row["label"] for row in about["rows"]] == ["teacher", "start", "student"]
    assert about["rows"][2]["snapshots"] == ["start", "1-step", "newest"]
    assert not about["finished"]
    answers = {
        row: page.get("/picture", params=RED | {"row": row, "steps": "2"})
        for row in ("teacher", "start", "student")
    }
    assert len({png(answer) for answer in answers.values()}) == 3
    assert all(answer.json()["seconds"] > 0 for answer in answers.values())
    assert answers["teacher"].json()["command"] == ""
    words = shlex.split(answers["start"].json()["command"])
    assert words[:4] == ["distillkit", "sample", str(run), "a red ring"]
    assert words[-4:] == ["--snapshot", "start", "--out", "picture.png"]
    # The picture is the command's, pixel by pixel.
    save_image(
        square(api.sample(run, "a red ring", steps=2, seed=7, snapshot="start"), cell=1),
        tmp_path / "s.png",
    )
    assert Image.open(tmp_path / "s.png").tobytes() == png(answers["start"])


def test_a_run_that_goes_on_shows_what_it_has_by_now(run: Path) -> None:
    page = client(PlayModel.open(str(run)))
    before = png(page.get("/picture", params=RED))
    own = world_teacher().denoiser.module.named_parameters()
    save_tensors(RunFolder(run).snapshot("2-step"), {n: p.detach() * 9 for n, p in own})
    assert page.get("/about").json()["rows"][2]["snapshots"][-2] == "2-step"
    assert png(page.get("/picture", params=RED)) != before
    assert png(page.get("/picture", params=RED | {"snapshot": "1-step"})) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompt": "  "}, "Write a prompt: what should be in the picture?"),
        ({"prompt": "x" * 2001}, "The prompt has 2001 characters; 2000 is the most"),
        ({"seed": "-1"}, "seed '-1': a whole number, 0 to 9223372036854775807"),
        ({"steps": "5"}, "steps '5': a whole number, 1 to 4"),
        ({"model": "1"}, "model '1': a whole number, 0 to 0"),
        ({"row": "judge"}, "has no row 'judge': teacher, start, student"),
        ({"snapshot": "1-stp"}, "has no snapshot '1-stp'; did you mean '1-step'?"),
    ],
)
def test_bad_input_is_a_sentence(run: Path, changed: dict[str, str], said: str) -> None:
    answer = client(PlayModel.open(str(run))).get("/picture", params=RED | changed)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


class Slow:
    """A model whose picture is not done until it is told; the next one is."""

    def __init__(self, model: PlayModel) -> None:
        self.model, self.going, self.done = model, threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def draw(self, asked: Any) -> Any:
        if asked.prompt == "slow":
            self.going.set()
            assert self.done.wait(60)
        return self.model.draw(asked)


def test_two_tabs_do_not_wait_for_each_other(run: Path) -> None:
    slow = Slow(PlayModel.open(str(run)))
    with client(slow) as page:
        answers: list[Any] = []
        tab = threading.Thread(
            target=lambda: answers.append(page.get("/picture", params=RED | {"prompt": "slow"}))
        )
        tab.start()
        assert slow.going.wait(60)
        assert page.get("/about").status_code == 200
        assert page.get("/picture", params=RED).status_code == 200
        assert not answers
        slow.done.set()
        tab.join(60)
        assert answers[0].status_code == 200


def test_runs_of_one_teacher_show_it_once(run: Path) -> None:
    model = PlayModel.open(str(run))
    labels = [row["label"] for row in client(model, model).get("/about").json()["rows"]]
    mine = ["a run: start", "a run: student"]
    assert labels == ["a run: teacher", *mine, *mine]


def test_the_page_fetches_nothing_from_elsewhere(run: Path) -> None:
    text = client(PlayModel.open(str(run))).get("/").text
    assert "distillkit play" in text
    assert "http" not in text
    assert "//" not in text.replace("// ", "")


def test_bound_to_this_machine_it_answers_to_no_other_name(run: Path) -> None:
    models = [PlayModel.open(str(run))]
    other = TestClient(server.make_app(models), base_url="http://elsewhere.example")
    assert other.get("/about").status_code == 400
    opened = TestClient(server.make_app(models, "0.0.0.0"), base_url="http://elsewhere.example")
    assert opened.get("/about").status_code == 200


def test_the_command_says_who_can_reach_the_page(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "serve", lambda app, at: None)

    def play(*options: str) -> tuple[int, str]:
        code, told = command("play", run, *options), capsys.readouterr()
        return code, " ".join((told.out + told.err).split())

    code, said = play("--port", "0")
    assert code == 0
    assert said.startswith("http://127.0.0.1:")
    assert said.endswith("(this machine only; Ctrl-C ends it)")
    assert "there is no password" in play("--port", "0", "--host", "0.0.0.0")[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = play("--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "name a free port, or 0 for any" in said
