"""Plugins are found by entry points; whatever is wrong with one stays with it."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from distillkit import hookspecs
from distillkit.configs import SOCKETS, LossConfig, PoolConfig, RefreshConfig
from distillkit.hookspecs import hookimpl
from distillkit.registry.entry_points import HOOKS, Installed, installed, load, register
from distillkit.registry.registry import Origin, UnknownPartError
from tests.distillkit.fakes import FakePool, Never, RandomRefresh

MINE = Origin("mine", "distillkit-mine", "1.0")


def plugin(**hooks: Any) -> Any:
    """A module with hooks that return the given values."""
    return SimpleNamespace(
        **{
            f"distillkit_register_{name}": hookimpl(lambda value=value: value)
            for name, value in hooks.items()
        }
    )


def registered(*modules: Any) -> Installed:
    found = Installed()
    for number, module in enumerate(modules):
        register(found, module, Origin(f"plugin{number}", f"dist{number}", "1.0"))
    return found


def test_there_is_one_hook_a_socket() -> None:
    assert tuple(HOOKS.values()) == SOCKETS
    assert all(getattr(hookspecs, hook).__doc__ for hook in HOOKS)


def test_parts_are_registered_with_their_origin() -> None:
    found = Installed()
    register(found, plugin(refreshes=[Never, RandomRefresh], pools=[FakePool]), MINE)
    assert found.broken == []
    assert found.plugins == [MINE]
    assert found.registry.get("refresh", "random").config is RandomRefresh
    assert found.registry.get("pool", "fake").origin is MINE


def test_a_duplicate_breaks_the_second_names_both_and_can_not_be_used() -> None:
    found = registered(plugin(refreshes=[Never]), plugin(refreshes=[Never, RandomRefresh]))
    (broken,) = found.broken
    assert broken.origin.plugin == "plugin1"
    assert "plugin 'plugin0' (dist0 1.0) and by plugin 'plugin1' (dist1 1.0)" in broken.reason
    with pytest.raises(UnknownPartError, match=r"'plugin0' .* and by plugin 'plugin1'"):
        found.registry.get("refresh", "never")
    assert found.registry.get("refresh", "random").origin.plugin == "plugin1"


class TheirHinge(LossConfig):
    type: Literal["hinge"] = "hinge"

    def build(self, teacher: Any, student: Any) -> Any: ...


def test_no_alphabet_takes_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point `broken` sorts before `nitrofusion`."""
    monkeypatch.setitem(sys.modules, "dk_hinge", plugin(losses=[TheirHinge]))
    points = [entry("broken", "dk_hinge"), *entry_points(group="distillkit")]
    found = load(points)
    assert found.registry.get("loss", "hinge").origin.plugin == "nitrofusion"
    (broken,) = (each for each in found.broken if "'hinge'" in each.reason)
    assert broken.origin.plugin == "broken"
    assert "'nitrofusion' (distillkit " in broken.reason
    assert "and by plugin 'broken'" in broken.reason


class Nameless(RefreshConfig):
    def build(self) -> Any: ...


class Renamed(RefreshConfig):
    type: Literal["a", "b"] = "a"

    def build(self) -> Any: ...


class Unbuildable(RefreshConfig):
    type: Literal["unbuildable"] = "unbuildable"


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pydantic's own word about it is lost among others

    class Shadow(RefreshConfig):
        type: Literal["shadow"] = "shadow"
        name: str = "a"

        def build(self) -> Any: ...

    class ShadowPool(PoolConfig):
        type: Literal["shadow"] = "shadow"
        draw_chance: float = 0.5  # type: ignore[assignment]

        def build(self, channels: Any, seed: int) -> Any: ...


class Blank(RefreshConfig):
    type: Literal["at random"] = "at random"

    def build(self) -> Any: ...


class Moved(RefreshConfig):
    socket = "pool"
    type: Literal["moved"] = "moved"

    def build(self) -> Any: ...


def test_a_field_can_not_hide_a_method_of_its_socket() -> None:
    found = registered(plugin(pools=[ShadowPool]))
    (broken,) = found.broken
    assert "ShadowPool, which has a field `draw_chance`: that name is reserved" in broken.reason


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "returned None, not a list of subclasses of RefreshConfig"),
        ("never", "returned 'never', not a list of subclasses of RefreshConfig"),
        ((Never,), "not a list of subclasses of RefreshConfig"),
        (["never"], "returned 'never', which is no class: a hook returns subclasses of RefreshC"),
        ([int], "returned int, which is not a subclass of RefreshConfig"),
        ([FakePool], "returned FakePool, which is not a subclass of RefreshConfig"),
        ([RefreshConfig], "returned RefreshConfig, which is not a subclass of RefreshConfig"),
        ([Nameless], "Nameless, which has no name: it needs a field `type: Literal"),
        ([Renamed], "Renamed, which has no name"),
        ([Blank], "Blank, whose name 'at random' has other characters than letters, digits and ."),
        ([Unbuildable], "Unbuildable, which has no `build` of its own"),
        ([Shadow], "Shadow, which has a field `name`: that name is reserved, choose another"),
        ([Moved], "Moved, whose socket was changed from 'refresh' to 'pool'"),
    ],
)
def test_a_hook_that_returns_rubbish_is_reported(result: Any, reason: str) -> None:
    found = registered(plugin(refreshes=result, pools=[FakePool]), plugin(refreshes=[Never]))
    (broken,) = found.broken
    assert broken.reason.startswith("distillkit_register_refreshes() returned ")
    assert reason in broken.reason
    assert {entry.name for entry in found.registry.entries()} == {"fake", "never"}


def test_a_hook_that_raises_is_reported_and_the_others_work() -> None:
    def explode() -> list[Any]:
        raise RuntimeError("no\nlicence")

    module = plugin(pools=[FakePool])
    module.distillkit_register_refreshes = hookimpl(explode)
    found = registered(module, plugin(refreshes=[Never]))
    (broken,) = found.broken
    assert broken.reason == "distillkit_register_refreshes() failed: RuntimeError: no licence"
    assert {entry.name for entry in found.registry.entries()} == {"fake", "never"}


def test_hooks_that_nobody_would_call_are_reported() -> None:
    unmarked = SimpleNamespace(distillkit_register_pools=lambda: [FakePool])
    misspelt = plugin(refresh=[Never])
    wants_more = SimpleNamespace(
        distillkit_register_pools=hookimpl(lambda config: [FakePool]),
    )
    found = registered(unmarked, misspelt, wants_more, SimpleNamespace())
    reasons = {broken.origin.plugin: broken.reason for broken in found.broken}
    assert reasons["plugin0"] == "distillkit_register_pools is not marked with @hookimpl"
    assert "no hook distillkit_register_refresh; did you mean 'dist" in reasons["plugin1"]
    assert "PluginValidationError" in reasons["plugin2"]
    assert "Argument(s) {'config'} are declared in the hookimpl but" in reasons["plugin2"]
    assert reasons["plugin3"].startswith("it has no hook")


def recipe_files(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    for name in ("one.yaml", "sub/two.yaml"):
        (folder / name).write_text("# A recipe.")
    return folder


def test_a_plugin_brings_recipes_as_files_and_folders(tmp_path: Path) -> None:
    folder, file = recipe_files(tmp_path / "a"), tmp_path / "three.yaml"
    file.write_text("# Three.")
    found = registered(plugin(recipes=[folder, file]))
    assert found.broken == []
    assert {name: recipe.path for name, recipe in found.recipes.items()} == {
        "one": folder / "one.yaml",
        "sub/two": folder / "sub" / "two.yaml",
        "three": file,
    }


def test_recipes_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    first, second = recipe_files(tmp_path / "a"), recipe_files(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    found = registered(
        plugin(recipes=[first]),
        plugin(recipes=[second, tmp_path / "empty"]),
        plugin(recipes=[str(first)], refreshes=[Never]),
        plugin(recipes=[tmp_path / "gone.yaml"]),
    )
    reasons = [broken.reason for broken in found.broken]
    assert reasons[0] == (
        "recipe 'one' is brought by plugin 'plugin0' (dist0 1.0) and by plugin 'plugin1' "
        "(dist1 1.0); the first keeps the name"
    )
    assert reasons[2].endswith(f"returned {tmp_path / 'empty'}, where no recipe is (.yaml)")
    assert reasons[3].endswith("not a list of paths (pathlib.Path)")
    assert reasons[4].endswith("gone.yaml, where no recipe is (.yaml)")
    assert found.recipes["one"].path == first / "one.yaml"
    assert found.registry.get("refresh", "never")


def entry(name: str, module: str) -> EntryPoint:
    return EntryPoint(name, module, "distillkit")


def test_a_plugin_that_cannot_be_imported_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dk_imports.py").write_text("import a_package_that_is_not_there")
    (tmp_path / "dk_syntax.py").write_text("def")
    (tmp_path / "dk_exits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("dk_imports", "dk_syntax", "dk_exits", "dk_absent")
    found = load([entry(name, name) for name in names])
    reasons = {broken.origin.plugin: broken.reason for broken in found.broken}
    failed = "ModuleNotFoundError: No module named"
    assert reasons["dk_imports"] == (
        f"importing dk_imports failed: {failed} 'a_package_that_is_not_there'"
    )
    assert reasons["dk_absent"] == f"importing dk_absent failed: {failed} 'dk_absent'"
    assert "SyntaxError: invalid syntax" in reasons["dk_syntax"]
    assert reasons["dk_exits"] == "importing dk_exits failed: SystemExit: 3"
    names = [entry.name for entry in found.registry.entries()]
    assert names == ["dataset", "image-folder", "jsonl", "list", "parquet", "text"]


def test_disabled_plugins_are_left_out_and_not_imported() -> None:
    found = load([entry("absent", "a_package_that_is_not_there")], {"absent"})
    assert found.broken == []
    assert [origin.plugin for origin in found.disabled] == ["absent"]


def test_the_environment_names_the_plugins_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLKIT_DISABLED_PLUGINS", "nitrofusion, shapes")
    found = installed.__wrapped__()
    assert [origin.plugin for origin in found.disabled] == ["nitrofusion", "shapes"]
    assert "nitrofusion" not in {entry.origin.plugin for entry in found.registry.entries()}
