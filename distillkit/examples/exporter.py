"""An exporter: the student's tensors in one safetensors file, in a number format of choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distillkit.configs import ExporterConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillkit.contracts import StudentNetwork

DType = Literal["float32", "float16"]


@dataclass
class ExampleExporter:
    """For students of any family: the tensors keep the names that their network gives them."""

    dtype: DType
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        import torch
        from safetensors.torch import save_file

        from distillkit.atomic import appearing
        from distillkit.exchange import SHIFT_KEY

        dtype = getattr(torch, self.dtype)
        weights = network.module.state_dict()
        tensors = {name: t.detach().to("cpu", dtype).clone() for name, t in weights.items()}
        with appearing(path) as temporary:
            save_file(tensors, temporary, {SHIFT_KEY: str(timestep_shift)})
        return [f"{len(tensors)} tensors in {self.dtype}; timestep shift {timestep_shift}"]


class ExampleExporterConfig(ExporterConfig):
    """One safetensors file."""

    type: Literal["example"] = "example"
    dtype: DType = "float16"
    """Number format of the tensors."""

    def build(self) -> ExampleExporter:
        return ExampleExporter(self.dtype)


@hookimpl
def distillkit_register_exporters() -> list[type[ExporterConfig]]:
    return [ExampleExporterConfig]
