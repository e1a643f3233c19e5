"""What `distillkit export` can write of SDXL-class students. Importing this needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import ExporterConfig, LayoutConfig
from distillkit_diffusers.words import Short

if TYPE_CHECKING:
    from distillkit import exchange


class DiffusersFolder(ExporterConfig):
    """A pipeline folder that stock diffusers loads."""

    type: Literal["diffusers"] = "diffusers"
    dtype: Short | None = None
    """Number format of the UNet; none takes the recipe's `publish_dtype`."""
    scheduler: Literal["stock", "shifted"] = "stock"
    """`stock`: LCMScheduler, which needs no trust and is told its one timestep. `shifted`: ours,
    from the folder: one to four steps, for those who load with `trust_remote_code=True`."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.exporters import FolderExporter

        return FolderExporter(self.dtype, self.scheduler == "shifted")


class UNetFile(ExporterConfig):
    """The UNet alone under diffusers' names, as NitroSD is shared."""

    type: Literal["unet"] = "unet"
    dtype: Short = "fp16"
    """Number format."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.exporters import UNetExporter

        return UNetExporter(self.dtype)


class SingleFile(ExporterConfig):
    """A whole checkpoint in SDXL's original layout, for ComfyUI and from_single_file."""

    type: Literal["single-file"] = "single-file"
    dtype: Short = "fp16"
    """Number format."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.exporters import SingleFileExporter

        return SingleFileExporter(self.dtype)


class LoRAFile(ExporterConfig):
    """The student as a LoRA on its base, for diffusers and ComfyUI."""

    type: Literal["lora"] = "lora"
    dtype: Short = "fp16"
    """Number format."""
    rank: int = Field(64, ge=1)
    """Largest rank of a matrix; a file of twice the rank is twice as large."""
    base: str | None = None
    """UNet file or folder, or pipeline folder, that the LoRA is put on; none: the model that the
    recipe's teacher was loaded from, without its LoRA or other UNet."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.exporters import LoRAExporter

        return LoRAExporter(self.dtype, self.rank, self.base)


class SDXLLayout(LayoutConfig):
    """UNets of the SDXL family: diffusers' names, or the original ones alone or in a checkpoint."""

    type: Literal["sdxl"] = "sdxl"

    def build(self) -> exchange.Layout:
        from distillkit_diffusers.sdxl_layout import SDXLFiles

        return SDXLFiles()
