"""SDXL-class models as files: fulfils `distillkit.exchange.Layout`.

The names that all files of the family share are the original ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from distillkit.contracts import Teacher
from distillkit.errors import UserError
from distillkit_diffusers.io import tensor_names
from distillkit_diffusers.io.model_configs import read_json
from distillkit_diffusers.io.weights import keys_of

PIPELINE = "StableDiffusionXL"
"""Start of the class names of SDXL's pipelines."""


class SDXLLayout:
    """UNets with diffusers' names or the original ones, alone or in a whole checkpoint."""

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        """The UNet's tensors: original name -> the file's key."""
        return tensor_names.find_unet(keys)

    def what_is(self, keys: Collection[str]) -> str:
        """What a file with these keys seems to be."""
        return tensor_names.what_is(keys)

    def recognises(self, model: Path) -> bool:
        """Whether it is an SDXL pipeline folder, or a file that holds an SDXL-class UNet."""
        if model.is_dir():
            name = read_json(model / "model_index.json").get("_class_name")
            return isinstance(name, str) and name.startswith(PIPELINE)
        if model.suffix != ".safetensors":
            return False
        try:
            return self.names(keys_of(model, str(model))) is not None
        except UserError:
            return False

    def published_shift(self, folder: Path) -> int | None:
        """The shift in the folder's schedulers' configs, if one of them shifts the timestep."""
        for config in sorted(folder.glob("*/scheduler_config.json")):
            shift = read_json(config).get("shifted_timestep")
            if isinstance(shift, int):
                return shift
        return None

    def open(self, model: str, weights: str | None, dtype: str) -> Teacher:
        """The pipeline, with `weights` for its UNet's."""
        from distillkit_diffusers.configs import SDXLTeacherConfig

        fields = {"model": model, "unet": weights, "dtype": dtype, "config": _configs_beside(model)}
        return SDXLTeacherConfig.model_validate(fields).build()


def _configs_beside(model: str) -> str | None:
    """For a single-file checkpoint in a run's folder: the run's published pipeline, which has the
    configs that the file lacks."""
    file = Path(model).expanduser()
    if not file.is_file():
        return None
    places = [place for up in file.resolve().parents[:3] for place in (up, up / "student")]
    return next((str(p) for p in places if (p / "model_index.json").is_file()), None)
