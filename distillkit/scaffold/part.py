"""A part of a new plugin: the example of its socket under another name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from distillkit.configs import SOCKETS, ComponentConfig
from distillkit.recipe.describe import inline, recipe_field
from distillkit.registry.entry_points import HOOKS

BASES = {base.socket: base for base in SOCKETS}
"""Socket -> base class of its configs."""


@dataclass(frozen=True)
class NewPart:
    """What the package's files say of a part."""

    socket: str
    name: str
    """The plugin's name, which is the part's in recipes too."""

    @property
    def base(self) -> str:
        """Name of the config's base class."""
        return BASES[self.socket].__name__

    @property
    def config(self) -> str:
        """Name of the config class: `MyPoolPoolConfig`."""
        return f"{_camel(self.name)}{self.base}"

    @property
    def hook(self) -> str:
        """The hook that returns configs of the socket."""
        return next(hook for hook, base in HOOKS.items() if base is BASES[self.socket])

    @property
    def field(self) -> str | None:
        """The recipe's field for parts of the socket; none where recipes do not name them."""
        return recipe_field(self.socket)

    @property
    def takes_teacher(self) -> bool:
        """Whether the part is built from a teacher."""
        return "teacher" in signature(vars(BASES[self.socket])["build"]).parameters

    @property
    def summary(self) -> str:
        """First line of the config's docstring."""
        return (self._example.__doc__ or "").partition("\n")[0]

    def line(self, old: Any) -> str:
        """The part in a recipe, with every field.

        `old`: the part or the list of parts that it replaces. Fields that every part of the socket
        has, such as a student's `timestep_shift`, keep their values.
        """
        one = old[0] if isinstance(old, tuple) and old else old  # of several metrics
        shared = [field for field in BASES[self.socket].model_fields if hasattr(one, field)]
        kept = {field: getattr(one, field) for field in shared if field != "type"}
        new = self._example.model_validate(kept).model_dump() | {"type": self.name}
        return f"{self.field}: {inline([new] if isinstance(old, list) else new)}"

    def source(self) -> str:
        """The module with the part and its config: the example without its hook."""
        text = Path(self._module.__file__).read_text(encoding="utf-8")
        text = text.partition("\n\n\n@hookimpl\n")[0] + "\n"
        text = text.replace("from distillkit.hookspecs import hookimpl\n", "")
        return text.replace("Example", _camel(self.name)).replace('"example"', f'"{self.name}"')

    @property
    def _module(self) -> Any:
        return import_module(f"distillkit.examples.{self.socket}")

    @property
    def _example(self) -> type[ComponentConfig]:
        config: type[ComponentConfig] = getattr(self._module, f"Example{self.base}")
        return config


def _camel(name: str) -> str:
    return name.title().replace("-", "")
