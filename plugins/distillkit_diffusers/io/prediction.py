"""What a UNet predicts, and whether its noise schedule ends at pure noise, as files state it.

Epsilon on SDXL's own betas goes without saying. Of anything else checkpoints hold empty tensors,
which ComfyUI and Forge look for, and metadata by the names of ModelSpec and of kohya's sd-scripts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

V_PRED, ZERO_SNR = "v_pred", "ztsnr"
"""Names of the empty tensors."""
MODEL_SPEC, KOHYA_ZERO_SNR = "modelspec.prediction_type", "ss_zero_terminal_snr"
"""Names in the metadata."""
_SPELLED = {"v_prediction": "v"}
"""diffusers' name -> ModelSpec's, where they differ."""
_COMFYUI = {"epsilon": "eps", "sample": "x0"}
"""diffusers' name -> that of ComfyUI's node ModelSamplingDiscrete, where they differ."""


@dataclass(frozen=True)
class Prediction:
    """Of one network."""

    kind: str = "epsilon"
    """As diffusers' schedulers call it."""
    zero_snr: bool = False
    """Whether the betas are rescaled so that the last noise level is noise alone."""

    @classmethod
    def of(cls, schedule: Mapping[str, Any]) -> Prediction:
        """`schedule`: the config of a diffusers scheduler."""
        return cls(
            schedule.get("prediction_type", "epsilon"),
            bool(schedule.get("rescale_betas_zero_snr", False)),
        )

    @classmethod
    def stated(cls, keys: Collection[str], metadata: Mapping[str, str]) -> Prediction | None:
        """What a checkpoint with these tensors says; None where it says nothing, or epsilon, which
        tools write unasked."""
        said = metadata.get(MODEL_SPEC, "").lower()
        kind = "v_prediction" if V_PRED in keys or said in ("v", "v_prediction") else "epsilon"
        kind = "sample" if said == "sample" else kind
        zero = ZERO_SNR in keys or metadata.get(KOHYA_ZERO_SNR, "").lower() == "true"
        found = cls(kind, zero)
        return None if found.is_usual else found

    @property
    def is_usual(self) -> bool:
        """Whether it is SDXL's own, which no file states."""
        return self == Prediction()

    @property
    def options(self) -> dict[str, Any]:
        """As the fields of a scheduler's config."""
        return {"prediction_type": self.kind, "rescale_betas_zero_snr": self.zero_snr}

    @property
    def comfyui(self) -> dict[str, Any]:
        """As the inputs of ComfyUI's node ModelSamplingDiscrete."""
        return {"sampling": _COMFYUI.get(self.kind, self.kind), "zsnr": self.zero_snr}

    def tensors(self) -> dict[str, Tensor]:
        """The empty tensors of a whole checkpoint; x_0 has none."""
        import torch

        there = {V_PRED: self.kind == "v_prediction", ZERO_SNR: self.zero_snr}
        return {name: torch.empty(0) for name, is_there in there.items() if is_there}

    def metadata(self) -> dict[str, str]:
        """Of a file of any form."""
        if self.is_usual:
            return {}
        stated = {MODEL_SPEC: _SPELLED.get(self.kind, self.kind)}
        return stated | ({KOHYA_ZERO_SNR: "True"} if self.zero_snr else {})
