"""What is told before anything is built: in the recipe's own lines, all at once, quickly."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pytest

from distillkit.configs import BackboneConfig, PoolConfig, RefreshConfig
from distillkit.recipe import preflight as module
from distillkit.recipe.load import LoadedRecipe, RecipeError, load_recipe
from distillkit.recipe.preflight import brought_by, describe_critics, parts_of, preflight
from distillkit.registry.registry import Origin
from distillkit.remarks import PoolSize, Remark
from tests.distillkit.fakes import RECIPE, Fake, fake_plugins


class Levels(Fake, BackboneConfig):
    type: Literal["levels"] = "levels"

    def level_channels(self, teacher: Any) -> tuple[int, ...]:
        return (2, 3)


class Wary(Fake, PoolConfig):
    """Says of its fields what it is told to say."""

    type: Literal["wary"] = "wary"
    heads: int = 4
    wrong: str = ""
    odd: str = ""
    broken: bool = False

    def draw_chance(self) -> float:
        return 0.5

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize:
        return PoolSize(self.heads, self.heads * sum(channels))

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        assert recipe.critic_of(self).pool is self
        if self.broken:
            raise KeyError("x")
        if self.wrong:
            yield Remark(self.wrong, "wrong")
        if self.odd:
            yield Remark(self.odd, "odd", is_error=False)


class Sometimes(Fake, RefreshConfig):
    type: Literal["sometimes"] = "sometimes"
    chance: float = 0.01

    def reset_chance(self, draw_chance: float) -> float:
        return self.chance


WARY = RECIPE.replace("backbone: {type: example}", "backbone: {type: levels}").replace(
    "pool: {type: fake, timesteps: [10, 250], views: {whole: {crop: 1.0}}}", "pool: {type: wary}"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the parts above installed."""
    found = fake_plugins()
    for part in (Levels, Wary, Sometimes):
        found.registry.add(part, Origin("wary", "distillkit-wary", "2.0"))
    for name in ("distillkit.recipe.load.installed", "distillkit.recipe.preflight.installed"):
        monkeypatch.setattr(name, lambda: found)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(folder: Path, *sets: str, text: str = WARY) -> LoadedRecipe:
    (folder / "my.yaml").write_text(text)
    return load_recipe("my.yaml", sets)


def wrong(recipe: Any, **options: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        preflight(recipe, **options)
    return str(caught.value).splitlines()


def test_parts_and_who_brings_them_are_listed_once(folder: Path) -> None:
    recipe = loaded(folder).recipe
    places = [".".join(path) for path, _ in parts_of(recipe)]
    assert places == [
        *("prompts", "teacher", "student", "backbone", "pool", "refresh", "losses.0", "losses.1"),
        *("warmup.losses.0", "refinement", "metrics.0"),
    ]
    assert brought_by(recipe)["wary (distillkit-wary 2.0)"] == ["backbone levels", "pool wary"]
    assert "loss distance" in brought_by(recipe)["fakes (fakes 1.0)"]
    assert sum(map(len, brought_by(recipe).values())) == len(places) - 1  # distance is there twice


def test_remarks_stand_at_their_fields_and_notes_stop_nothing(folder: Path) -> None:
    assert preflight(loaded(folder)) == []
    assert preflight(loaded(folder, "pool.odd=hm")) == ["pool.odd: hm"]
    text = WARY.replace("{type: wary}", "{type: wary, wrong: no such file}")
    sets = ("prompts={type: text, path: gone.txt}", "optim.student.bits=8", "pool.odd=hm")
    lines = wrong(loaded(folder, *sets, text=text))
    gone = f"there is no gone.txt here (the working directory is {folder}): put it there, or " + (
        "name another with `--set prompts.path=...`"
    )
    assert lines[:2] == [
        "my.yaml:6:20: pool.wrong: no such file",
        f"--set prompts={{type: text, path: gone.txt}}: prompts.path: {gone}",
    ]
    plain = loaded(folder, "pool.wrong=no", text=text).recipe
    assert wrong(plain) == ["pool.wrong: no"]
    left_out = "pool.wrong: no. A run will need it; this does not"
    assert preflight(plain, leave_out=("pool",)) == [left_out]


def test_bits_that_need_a_package_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert wrong(loaded(folder, "optim.student.bits=8")) == [
        "--set optim.student.bits=8: optim.student.bits: 8 bits need bitsandbytes: pip install "
        "'distillkit[8bit]'"
    ]


def test_a_preflight_that_fails_names_its_part(folder: Path) -> None:
    [line] = wrong(loaded(folder, "pool.broken=true"))
    assert line == "my.yaml:6:1: pool: preflight() of wary (distillkit-wary 2.0) failed: " + (
        "KeyError: 'x'"
    )


@pytest.mark.parametrize("package", ["a_package_nobody_has", "nobody.has", ""])
def test_a_cache_in_a_package_that_is_not_installed(folder: Path, package: str) -> None:
    sets = ("samples.count=4", f"samples.cache=package:{package}/samples")
    [line] = wrong(loaded(folder, *sets))
    assert f"samples.cache: there is no package '{package}' here; install it" in line
    assert preflight(loaded(folder, "samples.count=4", "samples.cache=new/folder")) == []


def test_a_cache_in_a_package_that_has_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run would fill the package; `precompute` may."""
    (folder / "theirs" / "samples").mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    recipe = loaded(folder, "samples.count=4", "samples.cache=package:theirs/samples")
    [line] = wrong(recipe)
    said = "samples.cache: package 'theirs' has no samples in 'samples', and a run writes nothing"
    assert said in line
    [note] = preflight(recipe, leave_out=("samples",))
    assert note.startswith(said)
    (folder / "theirs" / "samples" / "index.json").write_text("{}")
    assert preflight(recipe) == []


def test_a_pool_that_nothing_could_hold_is_refused(folder: Path) -> None:
    [line] = wrong(loaded(folder, "pool.heads=1000000000"))
    assert line.startswith("my.yaml:6:1: pool: has 1,000,000,000 heads with 5 billion parameters")
    several = WARY.replace("pool: {type: wary}\n", "").replace("backbone: {type: levels}\n", "")
    several = several.replace("refresh: {type: random, fraction: 0.02}\n", "")
    critic = "{backbone: {type: levels}, pool: {type: wary, heads: 10000000}}"
    [line] = wrong(loaded(folder, text=f"{several}critics: {{one: {critic}}}\n"))
    assert "critics.one.pool: has 10,000,000 heads with 0 billion parameters" in line


@pytest.mark.parametrize(
    ("refresh", "life"),
    [
        ("{type: sometimes}", "; a head lives 100 iterations and is trained 50.0 times, on "
         "average"),
        ("{type: sometimes, chance: 0}", "; a head is trained in 50% of the iterations and never "
         "reset"),
        ("", "; a head is trained in 50% of the iterations and never reset"),
        ("{type: random}", ""),  # a policy that does not tell
    ],
)  # fmt: skip
def test_sizes_and_lives_are_told_where_configs_know(folder: Path, refresh: str, life: str) -> None:
    recipe = loaded(folder, f"refresh={refresh}").recipe
    assert describe_critics(recipe) == [f"4 heads with 0.0 M parameters{life}"]
    assert describe_critics(loaded(folder, text=RECIPE).recipe) == []
