"""What distillkit_eval registers. Nothing here imports torch."""

from __future__ import annotations

from distillkit.configs import MetricsConfig
from distillkit.hookspecs import hookimpl
from distillkit_eval.configs import (
    AestheticConfig,
    AppearanceConfig,
    ClipConfig,
    DinoConfig,
    DiversityConfig,
    FidConfig,
    HpsConfig,
    ImageRewardConfig,
    PatchFidConfig,
    PickConfig,
)


@hookimpl
def distillkit_register_metrics() -> list[type[MetricsConfig]]:
    return [
        AestheticConfig,
        AppearanceConfig,
        ClipConfig,
        DinoConfig,
        DiversityConfig,
        FidConfig,
        HpsConfig,
        ImageRewardConfig,
        PatchFidConfig,
        PickConfig,
    ]
