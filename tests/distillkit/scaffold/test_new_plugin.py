"""`plugins new`: a package for every socket, which passes its own tests; bad names are refused."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distillkit.cli import build
from distillkit.configs import SOCKETS
from distillkit.errors import UserError
from distillkit.recipe.describe import recipe_field
from distillkit.registry.entry_points import BrokenPlugin, Installed, RecipeFile
from distillkit.registry.registry import Origin
from distillkit.scaffold.new_plugin import new_plugin
from distillkit.scaffold.part import BASES
from tests.distillkit.fakes import fake_plugins

EXAMPLE = Path(__file__).parents[3] / "plugins" / "distillkit-example"


def test_every_socket_can_be_started_from() -> None:
    assert set(BASES) == {base.socket for base in SOCKETS}


def passed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run each function of a package's test file, with its source on the path; how many."""
    monkeypatch.syspath_prepend(str(folder / "src"))
    spec = spec_from_file_location(f"tests_of_{folder.name}", folder / "tests" / "test_plugin.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    for test in tests:
        test()
    package = folder.name.replace("-", "_")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    return len(tests)


@pytest.mark.parametrize("socket", BASES)
def test_a_new_package_passes_its_own_tests(
    socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_plugin(f"new-{socket}", [socket], "starter", tmp_path, fake_plugins())
    assert passed(folder, monkeypatch) == (3 if recipe_field(socket) else 2)
    shown = (folder / "README.md").read_text().partition("## Change it")[0]
    assert ("recipes/" in shown) == (recipe_field(socket) is not None)
    assert ("fits the new one: its student, backbone" in shown) == (socket == "teacher")


def test_a_package_of_every_socket_passes_its_own_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract of each, that of the plugin, and a short run of all."""
    folder = new_plugin("new-all", [*BASES], "starter", tmp_path, fake_plugins())
    assert passed(folder, monkeypatch) == len(BASES) + 2


def test_the_command_takes_several_sockets(tmp_path: Path) -> None:
    words = ["plugins", "new", "two", "--socket", "pool", "--socket", "loss", "--out", tmp_path]
    done = CliRunner().invoke(build(), list(map(str, words)))
    assert done.exit_code == 0, done.output
    package = tmp_path / "distillkit-two" / "src" / "distillkit_two"
    assert {"pool.py", "loss.py"} < {path.name for path in package.iterdir()}
    for socket in ("pool", "loss"):
        assert f"distillkit plugins show two --socket {socket}" in done.output


def test_it_has_the_example_plugins_shape(tmp_path: Path) -> None:
    folder = new_plugin("round-robin", ["refresh"], "starter", tmp_path, Installed())
    theirs = {
        path.relative_to(EXAMPLE).as_posix()
        for path in EXAMPLE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    ours = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    renamed = {path.replace("distillkit_round_robin", "distillkit_example") for path in ours}
    assert renamed == theirs


@pytest.mark.parametrize(
    ("name", "socket", "reason"),
    [
        ("My_Pool", "pool", "'My_Pool': a name is small letters, digits and single dashes: my-p"),
        ("../up", "pool", "'../up': a name is"),
        ("two--dashes", "pool", "a name is"),
        ("new", "pol", "--socket pol: no such socket; did you mean 'pool'? teacher, "),
        ("random", "refresh", "refresh 'random' is there already, by plugin 'fakes' (fakes 1.0)"),
        ("theirs", "pool", "'theirs' is the name of plugin 'theirs' (dist-theirs 2.0); choose"),
        ("torn", "pool", "'torn' is the name of plugin 'torn' (? ?); choose another"),
        ("famous", "pool", "'famous' is a recipe of plugin 'theirs'"),
        ("nitrofusion", "pool", "a package distillkit_nitrofusion is installed already"),
    ],
)
def test_what_will_not_do_is_refused(name: str, socket: str, reason: str, tmp_path: Path) -> None:
    found = fake_plugins()
    theirs = Origin("theirs", "dist-theirs", "2.0")
    found.plugins.append(theirs)
    found.broken.append(BrokenPlugin(Origin("torn"), "?"))
    found.recipes["famous"] = RecipeFile(tmp_path / "famous.yaml", theirs)
    with pytest.raises(UserError) as caught:
        new_plugin(name, [socket], "starter", tmp_path, found)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "distillkit-mine").mkdir()
    (tmp_path / "distillkit-mine" / "work.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="distillkit-mine is there already"):
        new_plugin("mine", ["loss"], "starter", tmp_path, fake_plugins())
    assert (tmp_path / "distillkit-mine" / "work.py").read_text() == "x = 1\n"
