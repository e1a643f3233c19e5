"""Prompts made of a few words: every combination of a colour and a thing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distillkit.configs import PromptsConfig
from distillkit.contracts import PromptSource
from distillkit.hookspecs import hookimpl


class ExamplePromptsConfig(PromptsConfig):
    """A colour and a thing, in every combination."""

    type: Literal["example"] = "example"
    colours: list[str] = Field(["red", "blue"], min_length=1)
    """Colours."""
    things: list[str] = Field(["ring", "square", "star"], min_length=1)
    """Things that have a colour."""

    def build(self) -> PromptSource:
        return [f"a {colour} {thing}" for colour in self.colours for thing in self.things]


@hookimpl
def distillkit_register_prompts() -> list[type[PromptsConfig]]:
    return [ExamplePromptsConfig]
