"""distillkit: distil a slow diffusion model into one that needs one to four steps.

`load_recipe`, `train` and `sample` do what the command line does; `hookimpl` marks a plugin's
hooks. They load when they are first used: importing distillkit imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillkit.api import load_recipe as load_recipe
    from distillkit.api import sample as sample
    from distillkit.api import train as train
    from distillkit.hookspecs import hookimpl as hookimpl

__version__ = "0.1.0"

_LAZY = {
    "load_recipe": "distillkit.recipe.load",
    "train": "distillkit.api",
    "sample": "distillkit.api",
    "hookimpl": "distillkit.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'distillkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
