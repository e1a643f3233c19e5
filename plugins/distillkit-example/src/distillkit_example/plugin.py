"""The hooks of the plugin. distillkit finds this module by the entry point in pyproject.toml.

Importing it must not import torch, so that `distillkit --help` stays fast.
"""

from __future__ import annotations

from pathlib import Path

from distillkit.configs import RefreshConfig
from distillkit.hookspecs import hookimpl
from distillkit_example.refresh import RoundRobinRefreshConfig


@hookimpl
def distillkit_register_refreshes() -> list[type[RefreshConfig]]:
    """The plugin's refresh policies; `distillkit.hookspecs` has a hook for every socket."""
    return [RoundRobinRefreshConfig]


@hookimpl
def distillkit_register_recipes() -> list[Path]:
    """Files or folders of recipes; a file's name is its recipe's."""
    return [Path(__file__).parent / "recipes"]
