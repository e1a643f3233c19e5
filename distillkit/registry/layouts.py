"""The installed model families, and which of them a file or folder belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from distillkit.configs import LayoutConfig
from distillkit.errors import UserError, did_you_mean
from distillkit.exchange import Layout
from distillkit.registry.registry import Registry


def installed_layouts(registry: Registry) -> dict[str, Layout]:
    """A layout for every installed family, by name."""
    entries = [entry for entry in registry.entries() if entry.socket == LayoutConfig.socket]
    return {
        entry.name: cast("type[LayoutConfig]", entry.config).model_validate({}).build()
        for entry in entries
    }


def choose_layout(
    layouts: dict[str, Layout], family: str | None, model: str, weights: str | None
) -> Layout:
    """The family named by `family`, or the one that recognises the weights or the model.

    Raises `UserError` where there is no such family, or where the files do not tell.
    """
    if family is not None:
        if family not in layouts:
            guess = did_you_mean(family, layouts)
            known = ", ".join(sorted(layouts)) or "none"
            raise UserError(f"--family {family}: no such family;{guess} installed: {known}")
        return layouts[family]
    paths = [Path(name) for name in (weights, model) if name is not None]
    for path in (path for path in paths if path.exists()):
        for layout in layouts.values():
            if layout.recognises(path):
                return layout
    if len(layouts) == 1:
        return next(iter(layouts.values()))
    known = ", ".join(sorted(layouts)) or "none"
    raise UserError(
        f"{model}: its files do not tell its model family; name it with --family ({known})"
    )
