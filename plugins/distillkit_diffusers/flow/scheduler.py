"""The schedulers of flows: a pipeline's own, and a student's of fixed shift.

The first samples as the stock pipeline does, whatever spacing its config asks for; the second is
what a student's noise levels count on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def own_scheduler(config: Mapping[str, Any]) -> Any:
    """FlowMatchEulerDiscreteScheduler of a pipeline's config."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler.from_config(config)


def euler_scheduler(shift: float, stochastic: bool = False) -> Any:
    """FlowMatchEulerDiscreteScheduler at a fixed shift, with no other spacing.

    `stochastic`: x_0-hat gets fresh noise between steps, where the plain one steps along the flow.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift, stochastic_sampling=stochastic)


def linear_mu(config: Mapping[str, Any], tokens: int) -> float:
    """mu of dynamic shifting for pictures of so many tokens: linear in their number, as stock
    pipelines' `calculate_shift` has it."""
    fewest, most = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (most - fewest)
    return float(config["base_shift"] + slope * (tokens - fewest))


def fixed_shift(config: Mapping[str, Any], mu: float | None) -> float:
    """The shift of a scheduler's config. `mu`: of dynamic shifting; None where there is none."""
    if mu is None:
        return float(config["shift"])
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
