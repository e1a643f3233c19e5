"""The core's own parts and recipes. They register through the same hooks as everybody's."""

from __future__ import annotations

from pathlib import Path

from distillkit.configs import PromptsConfig
from distillkit.hookspecs import hookimpl
from distillkit.prompts.files import JsonlPrompts, ListPrompts, TextPrompts
from distillkit.prompts.images import ImageFolderPrompts
from distillkit.prompts.tables import DatasetPrompts, ParquetPrompts


@hookimpl
def distillkit_register_prompts() -> list[type[PromptsConfig]]:
    return [
        ListPrompts,
        TextPrompts,
        JsonlPrompts,
        ParquetPrompts,
        DatasetPrompts,
        ImageFolderPrompts,
    ]


@hookimpl
def distillkit_register_recipes() -> list[Path]:
    """In a wheel they lie in the package, in a checkout beside it."""
    package = Path(__file__).parents[1]
    folders = [package / "recipes", package.parent / "recipes"]
    return [folder for folder in folders if folder.is_dir()][:1]
