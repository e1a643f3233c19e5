"""A layout: files of this family keep the denoiser's tensors under a prefix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import LayoutConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillkit.contracts import Teacher


@dataclass(frozen=True)
class ExampleLayout:
    """`denoiser.conv.weight` in a file is `conv.weight` in all files."""

    prefix: str

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        found = {key.removeprefix(self.prefix): key for key in keys if key.startswith(self.prefix)}
        return found or None

    def what_is(self, keys: Collection[str]) -> str:
        return "a file of this family" if self.names(keys) else "a file of unknown tensors"

    def recognises(self, model: Path) -> bool:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(model, "pt") as file:
                return self.names(set(file.keys())) is not None
        except (OSError, SafetensorError):
            return False

    def published_shift(self, folder: Path) -> int | None:
        return None  # its folders do not say

    def open(self, model: str, weights: str | None, dtype: str) -> Teacher:
        from distillkit.errors import UserError

        raise UserError(f"{model}: models of this family can't be opened yet")


class ExampleLayoutConfig(LayoutConfig):
    """Tensors under a prefix."""

    type: Literal["example"] = "example"
    prefix: str = Field("denoiser.", min_length=1)
    """What the names of the denoiser's tensors start with."""

    def build(self) -> ExampleLayout:
        return ExampleLayout(self.prefix)


@hookimpl
def distillkit_register_layouts() -> list[type[LayoutConfig]]:
    return [ExampleLayoutConfig]
