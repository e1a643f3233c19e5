"""The page in a real browser: Chromium without a window, on a run of the demo's recipe."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distillkit import load_recipe
from distillkit.exchange import packaged_path
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder

pytestmark = pytest.mark.slow
pytest.importorskip("starlette", reason="the page needs the extra `ui`")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no Chromium here: Debian's chromium and chromium-driver", allow_module_level=True)

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1280,1000",
)
WEIGHTS = "diffusion_pytorch_model.safetensors"
WAIT = 120
"""Seconds; a browser starts slowly on a busy machine."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of a run of the demo's recipe, served by a thread: it starts with the shipped
    one-step weights, as the demo does, and its only stage ends with the teacher's own."""
    import uvicorn

    from distillkit.play import server
    from distillkit.play.models import PlayModel

    folder = RunFolder(tmp_path_factory.mktemp("play") / "run")
    folder.create(dump_recipe(load_recipe("nitro_shapes").recipe), {}, 1)
    for name, shipped in (("start", "one_step"), ("1-step", "teacher/unet")):
        place = packaged_path(f"package:distillkit_shapes/{shipped}", "start")
        folder.snapshot(name).parent.mkdir(exist_ok=True)
        shutil.copyfile(place / WEIGHTS, folder.snapshot(name))
    app = server.make_app([PlayModel.open(str(folder.path))])
    with server.bound("127.0.0.1", 0) as at:
        serving = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=lambda: serving.run(sockets=[at]))
        thread.start()
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
        serving.should_exit = True
        thread.join(WAIT)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def until(condition: Any) -> Any:
    """What the condition gives once it is true."""
    end = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return found


def sources(browser: Any) -> list[str]:
    """Of the pictures that are drawn, from the upper left on; empty while some are not."""
    script = "return [...document.querySelectorAll('figure')].map(f => f.className === 'old' ? '' : f.querySelector('img').src)"  # noqa: E501
    found = browser.execute_script(script)
    return found if found and all(src.startswith("data:image/png") for src in found) else []


def said(browser: Any) -> str:
    return str(browser.execute_script("return document.getElementById('said').textContent"))


def texts(browser: Any, selector: str, holding: str) -> list[str]:
    """In each element: the text of the first one in it whose own text matches."""
    script = """
        const [selector, holding] = [arguments[0], new RegExp(arguments[1])];
        return [...document.querySelectorAll(selector)].map(row => [...row.querySelectorAll('*')]
            .find(each => !each.children.length && holding.test(each.textContent)).textContent);
    """
    return list(browser.execute_script(script, selector, holding))


def draw(browser: Any, prompt: str) -> None:
    field = browser.find_element("id", "prompt")
    field.clear()
    field.send_keys(prompt, "\n")


def test_a_prompt_shows_pictures_and_bad_input_a_sentence(browser: Any, address: str) -> None:
    browser.get(address)
    until(lambda: len(browser.find_elements("css selector", "section.row")) == 3)
    draw(browser, "a red ring")
    first = until(lambda: sources(browser))
    assert len(set(first)) == 3, "teacher, start and student"
    times = texts(browser, "section.row", "own steps|step, ")
    assert [time.split(", ")[0] for time in times] == ["its own steps", "1 step", "1 step"]
    assert all(re.search(r"\d (ms|s) a picture$", time) for time in times)
    # The command of the start's picture, copied; or said, where the browser keeps its clipboard.
    browser.execute_script("document.querySelectorAll('figure button')[1].click()")
    until(lambda: "distillkit sample" in said(browser))
    assert "'a red ring' --steps 1 --seed 0 --snapshot start" in said(browser)
    # Two steps: the teacher's picture stays, the others change.
    browser.execute_script("document.querySelectorAll('input[name=steps]')[1].click()")
    second = until(lambda: sources(browser))
    assert second[0] == first[0]
    assert second[1] != first[1]
    # The slider at its first place draws the start.
    browser.execute_script(
        "const s = document.querySelector('input[type=range]'); s.value = 0;"
        "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'));"
    )
    third = until(lambda: sources(browser))
    assert third[2] == third[1]
    # Three seeds side by side.
    browser.execute_script(
        "const c = document.getElementById('count'); c.value = '3';"
        "c.dispatchEvent(new Event('change'));"
    )
    assert len(set(until(lambda: sources(browser)))) == 6, "start and student are the same"
    until(lambda: "same noise" in said(browser))
    # A sentence, and pictures again after it.
    draw(browser, "   ")
    until(lambda: said(browser) == "Write a prompt: what should be in the picture?")
    draw(browser, "another ring")
    assert set(until(lambda: sources(browser))).isdisjoint(third)


def test_two_tabs_do_not_block_each_other(browser: Any, address: str) -> None:
    browser.get(address)
    one = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(address)
    for tab in (one, browser.current_window_handle):
        browser.switch_to.window(tab)
        until(lambda: browser.find_elements("css selector", "section.row"))
        draw(browser, f"a ring in tab {tab}")
    for tab in browser.window_handles:
        browser.switch_to.window(tab)
        assert len(until(lambda: sources(browser))) == 3
