"""Transformers that predict a flow as files: fulfils `distillkit.exchange.Layout`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillkit.errors import UserError
from distillkit_diffusers.flow.settings import read_settings
from distillkit_diffusers.io import tensor_names
from distillkit_diffusers.io.model_configs import local_path, read_json
from distillkit_diffusers.io.weights import keys_of

if TYPE_CHECKING:
    from distillkit.configs import Sampler
    from distillkit.contracts import Teacher
    from distillkit_diffusers.flow.configs import FlowTeacherConfig

NO_SHIFT = 1000
"""The networks are run at their own noise levels."""


class FlowLayout:
    """Transformers of one family, alone or in a whole checkpoint.

    diffusers' names and the original ones differ by more than the words, so that two files of
    different layouts have few names in common.
    """

    def __init__(self, teacher: type[FlowTeacherConfig]) -> None:
        self.teacher, self.family = teacher, teacher.family

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        """The transformer's tensors: name without a prefix -> the file's key."""
        return self.family.names(keys)

    def what_is(self, keys: Collection[str]) -> str:
        """What a file with these keys seems to be."""
        whole = f"a {self.family.name} transformer"
        return whole if self.family.names(keys) else tensor_names.what_is(keys)

    def recognises(self, model: Path) -> bool:
        """Whether it is a pipeline folder of the family, or a file that holds its transformer."""
        if model.is_dir():
            return read_json(model / "model_index.json").get("_class_name") == self.family.pipeline
        if model.suffix != ".safetensors":
            return False
        try:
            return self.names(keys_of(model, str(model))) is not None
        except UserError:
            return False

    def published_shift(self, folder: Path) -> int | None:
        """None is needed: 1000 for every folder of the family."""
        return NO_SHIFT if self.recognises(folder) else None

    def published_sampler(self, folder: Path) -> Sampler:
        """Whether the folder's scheduler adds fresh noise between steps or follows the flow."""
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        return "renoise" if scheduler.get("stochastic_sampling") else "euler"

    def published_levels(self, folder: Path) -> Sequence[float]:
        """The noise levels of the student's roll-outs."""
        return read_settings(folder).levels

    def open(self, model: str, weights: str | None, dtype: str) -> Teacher:
        """The pipeline, with `weights` for its transformer's, and with the tokens of its texts that
        a published folder states."""
        fields: dict[str, Any] = {
            "model": model,
            "transformer": weights,
            "dtype": dtype,
            "guidance": 0,
        }
        tokens = read_settings(local_path(model)).max_tokens
        fields |= {} if tokens is None else {"max_tokens": tokens}
        return self.teacher.model_validate(fields).build()
