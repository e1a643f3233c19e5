"""The transformer as a student, trained whole or through a LoRA.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.common.trainable import merged_network
from distillkit_diffusers.flow.publish import publish_pipeline

if TYPE_CHECKING:
    from distillkit.configs import Sampler
    from distillkit.noising import Prediction
    from distillkit.values import Condition
    from distillkit_diffusers.choices import DType
    from distillkit_diffusers.flow.teacher import FlowTeacher


class FlowStudent:
    """Fulfils `distillkit.contracts.StudentNetwork`: the parameters of `module` train."""

    prediction: Prediction = "flow"

    def __init__(
        self,
        teacher: FlowTeacher,
        module: Any,
        levels: Sequence[float],
        sampler: Sampler,
        publish_dtype: DType = "float32",
    ) -> None:
        """`module`: a transformer of the teacher's class, or a `LoRATwin` of one. `levels` and
        `sampler` of its roll-outs go into what it publishes."""
        self.module = module
        self.teacher = teacher
        self.levels, self.sampler = levels, sampler
        self._publish_dtype = getattr(torch, publish_dtype)

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The flow (B, C, H, W)."""
        return self.teacher.denoise(self.module)(x_t_BCHW, t_B, cond)

    def transformer(self, dtype: Any) -> Any:
        """A copy of the transformer on the CPU in `dtype`, any LoRA merged, wrappers removed."""
        return merged_network(self.module, type(self.teacher.pipe.transformer), dtype)

    def publish(self, folder: Path, timestep_shift: int, dtype: Any = None) -> None:
        """Write a pipeline folder of the teacher's parts and this transformer.

        `timestep_shift`: 1000, since the network is run at its own noise level. `dtype`: the
        transformer's number format, in place of the recipe's.
        """
        publish_pipeline(
            self.teacher,
            self.transformer(dtype or self._publish_dtype),
            folder,
            stochastic=self.sampler == "renoise",
            levels=self.levels,
        )
