"""The core's own parts. They register through the same hooks as everybody's."""

from __future__ import annotations

from distillkit.configs import PromptsConfig
from distillkit.hookspecs import hookimpl
from distillkit.prompts import JsonlPrompts, ListPrompts, TextPrompts


@hookimpl
def distillkit_register_prompts() -> list[type[PromptsConfig]]:
    return [ListPrompts, TextPrompts, JsonlPrompts]
