"""The docs say what the code says: every socket's signature, and an example that runs."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from distillkit import configs, contracts, examples, exchange, testing
from distillkit.configs import ComponentConfig
from distillkit.hookspecs import hookimpl
from distillkit.registry.entry_points import HOOKS

DOCS = Path(__file__).parents[2] / "docs"
HOOK_OF = {base: hook for hook, base in HOOKS.items()}


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)


def page(base: type[ComponentConfig]) -> Path:
    return DOCS / "sockets" / f"{base.socket}.md"


def bare(kind: type) -> ast.stmt:
    """A class without docstrings and bodies: fields and signatures."""
    node: Any = ast.parse(inspect.getsource(kind)).body[0]
    kept: list[Any] = []
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) != "socket":
            kept.append(line)
        if isinstance(line, ast.FunctionDef):
            line.body = [ast.Expr(ast.Constant(...))]
            kept.append(line)
    node.body = kept
    return node


def signature(base: type[ComponentConfig]) -> list[ast.stmt]:
    """Hook, base of the config, and the protocol that `build` returns with those it extends."""
    hook = ast.parse(f"def {HOOK_OF[base]}() -> list[type[{base.__name__}]]: ...").body
    module, _, name = str(inspect.signature(base.build).return_annotation).rpartition(".")  # type: ignore[attr-defined]
    kind = getattr({"contracts": contracts, "exchange": exchange}[module], name)
    protocols = [
        bare(each)
        for each in reversed(getattr(kind, "__mro__", ()))
        if each.__module__ in ("distillkit.contracts", "distillkit.exchange")
    ]
    return [*hook, bare(base), *protocols]


@pytest.mark.parametrize("base", configs.SOCKETS, ids=lambda base: base.socket)
def test_the_page_shows_the_signature_of_the_code(base: type[ComponentConfig]) -> None:
    shown = ast.parse(python_blocks(page(base))[0])
    wanted = ast.parse(ast.unparse(ast.Module(signature(base), [])))
    assert ast.unparse(shown) == ast.unparse(wanted)


@pytest.mark.parametrize("base", configs.SOCKETS, ids=lambda base: base.socket)
def test_the_example_of_the_page_runs(
    base: type[ComponentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the file that `plugins new` copies; here it is executed as it stands on the page."""
    text = python_blocks(page(base))[1]
    assert text == (Path(examples.__path__[0]) / f"{base.socket}.py").read_text()
    module = ModuleType(f"docs_{base.socket}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(text, page(base).name, "exec"), vars(module))
    for config in getattr(module, HOOK_OF[base])():
        testing.check(config())


def test_the_plugin_page_shows_hooks_and_checks_that_there_are() -> None:
    text = (DOCS / "plugin.md").read_text()
    for name in re.findall(r"`?(check\w*)\(", text):
        assert name in testing.__all__
    names: dict[str, Any] = {"__file__": "/there/plugin.py"}
    [block] = [b for b in python_blocks(DOCS / "plugin.md") if "register_recipes" in b]
    exec(block, names)
    assert names["distillkit_register_recipes"]() == [Path("/there/recipes")]
    assert names["hookimpl"] is hookimpl


def test_every_page_is_in_the_menu_and_every_link_leads_somewhere() -> None:
    menu = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]
    listed = re.findall(r"[\w/-]+\.md", str(menu))
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(pages)
    assert {f"sockets/{base.socket}.md" for base in configs.SOCKETS} < set(pages)
    for path in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+\.md)\)", path.read_text()):
            assert (path.parent / link).is_file(), f"{path}: {link}"
