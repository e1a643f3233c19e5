"""Pages that are made from the code are up to date; what the others name exists."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

from distillkit import cli, contracts, values
from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.registry.registry import Origin

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def load(name: str, path: Path) -> ModuleType:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load("docs_generate", DOCS / "generate.py")


# ---------------------------------------------------------------- generated pages


GENERATED = [page for page in PAGES if page.parent.name in ("reference", "sockets")]


def named(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", GENERATED, ids=named)
def test_a_generated_page_is_what_the_code_gives_now(page: Path) -> None:
    assert page.read_text() == generate.pages()[page], (
        f"{page.relative_to(REPOSITORY)} is out of date; run: .venv/bin/python docs/generate.py"
    )


def test_every_field_of_a_recipe_is_on_its_page() -> None:
    text = generate.recipe_page()
    for name in Recipe.model_fields:
        assert f"\n| `{name}` | " in text
    for section in ("`samples`", "`warmup`", "`optim`", "`optim.student`", "`run`"):
        assert f"\n## {section}" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=null"], "pool: needs a `backbone`"),
        (["backbone=null", "pool=null", "refresh={type: random}"], "refresh: needs a `pool`"),
        (["backbone=null", "pool=null"], "warmup.critic: needs a `pool`"),
        (["warmup.student=10"], "warmup.student: needs `losses`"),
        (["samples.count=null"], "samples.cache: needs `count`"),
        (["samples.noise=fresh", "losses=[{type: regression}]"], "losses.0: compares pictures"),
        (["optim.warmup={lr: 1, bits: 8}"], "optim.warmup.bits: should be 32"),
        (["optim.aux={lr: 1, bits: 8}"], "optim.aux.bits: should be 32"),
        (["run.parallel=fsdp2", "optim.student.bits=8"], "run.parallel: .* 8 bits"),
        (["run.parallel=fsdp2", "student.train=lora"], "run.parallel: needs a student"),
    ],
)
def test_the_rules_across_fields_are_those_of_the_page(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("ladd_shapes", overrides)


def test_every_part_of_ours_is_on_its_page() -> None:
    text = generate.parts_page()
    for entry in installed().registry.entries():
        if entry.origin.distribution == "distillkit":
            _, _, section = text.partition(f"\n### {entry.socket}: {entry.name}\n")
            for name in entry.config.model_fields:
                assert name == "type" or f"\n| `{name}` | " in section.partition("\n### ")[0]


def test_parts_of_others_are_not_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = installed().registry.entries()[0]
    entries = [dataclasses.replace(theirs, origin=Origin("theirs", "distillkit-theirs", "1"))]
    monkeypatch.setattr(type(installed().registry), "entries", lambda _: entries)
    assert f"### {theirs.socket}: {theirs.name}" not in generate.parts_page()


@cache
def commands() -> dict[str, set[str]]:
    """Words of every command -> its options."""
    root = typer.main.get_command(cli.build())
    found = generate._commands(root, "distillkit")
    return {words: {opt for p in each.params for opt in p.opts} for words, each in found}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_on_a_page_exist_with_their_options(page: Path) -> None:
    text = page.read_text()
    shown = re.findall(r"(?:^|`)(distillkit [a-z][^`\n#]*)", text, re.M)
    for line in shown:
        words = max(
            (w for w in commands() if f"{line} ".startswith(f"{w} ")), default=None, key=len
        )
        group = any(w.startswith(f"{line.strip()} ") for w in commands())
        assert words or group, f"{page}: no command {line!r}"
        for option in re.findall(r" (--?[a-z][a-z-]*)", line):
            assert option in commands()[words or ""], f"{page}: {line!r}"


# ---------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as the renderer makes them."""
    heads = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_into_pages_lead_to_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert anchor in anchors(there), f"{page}: {target}#{anchor}"


# ---------------------------------------------------------------- values


def rows(page: str, heading: str) -> list[str]:
    """First column of the tables in a section, without backticks and arguments."""
    _, _, section = (DOCS / page).read_text().partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)[^`]*` \|", section, re.M)


CLASSES = [kind for kind in vars(values).values() if dataclasses.is_dataclass(kind)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_values_page_has_every_field(kind: Any) -> None:
    assert rows("values.md", kind.__name__) == [field.name for field in dataclasses.fields(kind)]


def test_the_values_page_has_everything_of_a_batch() -> None:
    batch = contracts.TrainBatch
    methods = [name for name in vars(batch) if not name.startswith("_")]
    assert rows("values.md", "TrainBatch") == [*batch.__annotations__, *methods]


# ---------------------------------------------------------------- the paper's sections


def defined(path: Path) -> set[str]:
    """Names that a module defines, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def recipe_fields() -> set[str]:
    """Fields of a recipe as `optim.student`; those of parts by their socket."""
    found = set(Recipe.model_fields)
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        found |= {f"{name}.{each}" for each in inner}
    for entry in installed().registry.entries():
        socket = "losses" if entry.socket == "loss" else entry.socket
        found |= {f"{socket}.{each}" for each in entry.config.model_fields}
    return found


def test_the_papers_sections_lead_to_code_and_fields() -> None:
    table = re.findall(r"^\| .* \| (.*) \| (.*)\|$", (DOCS / "nitrofusion.md").read_text(), re.M)[
        1:
    ]
    assert len(table) > 15
    for code, fields in table:
        for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", code):
            owner = REPOSITORY if path.startswith("distillkit/") else REPOSITORY / "plugins"
            assert (owner / path).is_file(), path
            assert set(re.findall(r"`([\w.]+)`", names)) <= defined(owner / path), (path, names)
        assert re.search(r"`[\w/]+\.py`: `", code)
        for field in re.findall(r"`([\w.]+)`", fields):
            assert field in recipe_fields(), field


def test_the_pages_480_heads() -> None:
    from distillkit.randomness import generator
    from distillkit.values import HeadStats
    from distillkit_nitrofusion.refresh import RandomRefresh

    recipe = load_recipe(REPOSITORY / "recipes" / "nitro_vibrant.yaml").recipe
    assert recipe.pool is not None
    channels = (320,) * 4 + (640,) * 3 + (1280,) * 3
    for draw, count in (("one", 30), ("all", 120)):
        pool = recipe.pool.model_copy(update={"draw": draw}).outline(channels, 0)
        assert len(pool.heads) == 480
        assert len(pool.draw(5, generator(0, "panel")).head_ids) == count
    age_N = torch.ones(480, dtype=torch.int64)
    stats = HeadStats(age_N, age_N, age_N > 0, age_N / 2)
    policy = RandomRefresh(0.01, 1)
    picked = [len(policy.pick(i, stats, generator(0, "refresh", i))) for i in range(10)]
    assert set(picked) == {4, 5}
    assert sum(picked) == 48
