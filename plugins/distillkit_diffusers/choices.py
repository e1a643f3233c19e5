"""The values that recipe fields choose from, as loaders, solvers and exporters take them."""

from __future__ import annotations

from typing import Literal

SolverName = Literal["ddim", "dpm++", "euler", "euler-ancestral", "lcm", "lcm-shift", "tcd"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["trailing", "leading", "linspace"]
DType = Literal["float32", "bfloat16", "float16"]
OffloadName = Literal["text_encoders", "vae"]
FileDType = Literal["fp16", "bf16", "fp32"]
"""Number formats of exported files, by the names that their users know."""
LoRANames = Literal["diffusers", "kohya"]

LORA_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
)
"""Ends of the names of a UNet's layers that get a LoRA."""
UNET_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "conv", "conv_in", "conv_out"),
    *("time_emb_proj", "linear_1", "linear_2"),
)
"""Ends of the names of a UNet's matrices and convolutions: all that can get one."""
