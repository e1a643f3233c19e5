"""Words of recipes that loaders, solvers and exporters take as they stand there."""

from __future__ import annotations

from typing import Literal

SolverName = Literal["ddim", "dpm++", "euler", "euler-ancestral", "lcm", "lcm-shift", "tcd"]
Predicts = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["trailing", "leading", "linspace"]
DType = Literal["float32", "bfloat16", "float16"]
Offload = Literal["text_encoders", "vae"]
Short = Literal["fp16", "bf16", "fp32"]
