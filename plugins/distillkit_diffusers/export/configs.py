"""What `distillkit export` can write of SDXL-class students. Importing this needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distillkit.configs import ExporterConfig, LayoutConfig
from distillkit_diffusers.choices import FileDType, LoRANames
from distillkit_diffusers.flow.configs import FlowTeacherConfig
from distillkit_diffusers.flux2.configs import Flux2TeacherConfig
from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from distillkit_diffusers.z_image.configs import ZImageTeacherConfig

if TYPE_CHECKING:
    from distillkit import exchange


class DiffusersFolderConfig(ExporterConfig):
    """A pipeline folder that stock diffusers loads."""

    type: Literal["diffusers"] = "diffusers"
    dtype: FileDType | None = None
    """Number format of the UNet. None takes the recipe's `publish_dtype`."""
    scheduler: Literal["stock", "shifted"] = "stock"
    """`stock`: diffusers' LCMScheduler, for one step at the timestep that the README states.
    `shifted`: our scheduler as remote code in the folder, for one to four steps with
    `trust_remote_code=True`."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.export.exporters import FolderExporter

        return FolderExporter(self.dtype, self.scheduler == "shifted")


class UNetFileConfig(ExporterConfig):
    """The UNet alone with diffusers' names, as NitroSD is shared."""

    type: Literal["unet"] = "unet"
    dtype: FileDType = "fp16"
    """Number format of the tensors."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.export.exporters import UNetExporter

        return UNetExporter(self.dtype)


class SingleFileConfig(ExporterConfig):
    """A whole checkpoint in SDXL's original layout, for ComfyUI and from_single_file."""

    type: Literal["single-file"] = "single-file"
    dtype: FileDType = "fp16"
    """Number format of the tensors."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.export.exporters import SingleFileExporter

        return SingleFileExporter(self.dtype)


class TransformerFileConfig(ExporterConfig):
    """The transformer alone with its authors' own names, for ComfyUI and from_single_file."""

    type: Literal["transformer"] = "transformer"
    dtype: FileDType = "bf16"
    """Number format of the tensors."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.export.exporters import TransformerExporter

        return TransformerExporter(self.dtype)


class LoRAFileConfig(ExporterConfig):
    """The student as a LoRA for its base, for diffusers, ComfyUI and kohya's tools."""

    type: Literal["lora"] = "lora"
    dtype: FileDType = "fp16"
    """Number format of the tensors."""
    rank: int = Field(64, ge=1)
    """Largest rank of a matrix; a file of twice the rank is twice as large."""
    base: str | None = None
    """UNet file or folder, or pipeline folder, that the LoRA will be added to; of the SD3 family
    a folder. None takes the model that the recipe's teacher was loaded from, without its LoRA or
    other weights."""

    names: LoRANames = "diffusers"
    """Of a UNet's layers. `diffusers` is read by diffusers and ComfyUI; `kohya` by kohya's
    sd-scripts too (there without the few layers outside of its blocks), and by diffusers from
    0.42 on. The SD3 family has diffusers' own names, whatever stands here."""

    def build(self) -> exchange.Exporter:
        from distillkit_diffusers.export.exporters import LoRAExporter

        return LoRAExporter(self.dtype, self.rank, self.base, self.names)


class SDXLLayoutConfig(LayoutConfig):
    """UNets of the SDXL family: diffusers' names or the original ones, alone or in a checkpoint."""

    type: Literal["sdxl"] = "sdxl"

    def build(self) -> exchange.Layout:
        from distillkit_diffusers.export.layout import SDXLLayout

        return SDXLLayout()


class FlowLayoutConfig(LayoutConfig):
    """Transformers of a family that predict a flow, alone or in a checkpoint."""

    teacher: ClassVar[type[FlowTeacherConfig]]

    def build(self) -> exchange.Layout:
        from distillkit_diffusers.export.flow_layout import FlowLayout

        return FlowLayout(self.teacher)


class SD3LayoutConfig(FlowLayoutConfig):
    """Transformers of the Stable Diffusion 3 family, with diffusers' names or the original ones."""

    teacher = SD3TeacherConfig
    type: Literal["sd3"] = "sd3"


class ZImageLayoutConfig(FlowLayoutConfig):
    """Transformers of the Z-Image family, with diffusers' names or the original ones."""

    teacher = ZImageTeacherConfig
    type: Literal["z-image"] = "z-image"


class Flux2LayoutConfig(FlowLayoutConfig):
    """Transformers of the FLUX.2 family, with diffusers' names or the original ones."""

    teacher = Flux2TeacherConfig
    type: Literal["flux2"] = "flux2"
