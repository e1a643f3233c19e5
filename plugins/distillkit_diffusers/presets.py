"""Published SDXL models as teachers and starts; remarks on settings. Needs no torch.

Sources: the models' cards and their code. Fields beside `preset` override these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from distillkit.configs import LEVELS
from distillkit.remarks import Remark, without_effect
from distillkit_diffusers.choices import UNET_LAYERS

BASE = {"model": "stabilityai/stable-diffusion-xl-base-1.0", "variant": "fp16"}
"""They go together: a recipe that names another model has its own variant."""
HYPER, LIGHTNING, NITRO = "ByteDance/Hyper-SD", "ByteDance/SDXL-Lightning", "ChenDY/NitroFusion"

PRESETS: dict[str, dict[str, Any]] = {
    # The scheduler of the base's own folder; guidance from its reference code.
    "sdxl-base": {**BASE, "solver": "euler", "spacing": "leading", "steps": 25, "guidance": 7.5},
    "dmd2-4step": {
        **BASE,
        "unet": "tianweiy/DMD2/dmd2_sdxl_4step_unet_fp16.bin",
        "solver": "lcm",
        "timesteps": (999, 749, 499, 249),
    },
    "dmd2-1step": {
        **BASE,
        "unet": "tianweiy/DMD2/dmd2_sdxl_1step_unet_fp16.bin",
        "solver": "lcm",
        "timesteps": (399,),
    },
    "hyper-sdxl-8step": {
        **BASE,
        "lora": f"{HYPER}/Hyper-SDXL-8steps-lora.safetensors",
        "solver": "ddim",
        "spacing": "trailing",
        "steps": 8,
    },
    "hyper-sdxl-1step": {
        **BASE,
        "unet": f"{HYPER}/Hyper-SDXL-1step-Unet.safetensors",
        "solver": "lcm",
        "timesteps": (800,),
    },
    "hyper-sdxl-unified": {
        **BASE,
        "lora": f"{HYPER}/Hyper-SDXL-1step-lora.safetensors",
        "solver": "tcd",
        "eta": 1.0,
        "steps": 4,
    },
    "lightning-1step": {
        **BASE,
        "unet": f"{LIGHTNING}/sdxl_lightning_1step_unet_x0.safetensors",
        "solver": "euler",
        "spacing": "trailing",
        "steps": 1,
        "prediction": "sample",
    },
    **{
        f"lightning-{steps}step": {
            **BASE,
            "unet": f"{LIGHTNING}/sdxl_lightning_{steps}step_unet.safetensors",
            "solver": "euler",
            "spacing": "trailing",
            "steps": steps,
        }
        for steps in (2, 4, 8)
    },
    "sdxl-turbo": {
        "model": "stabilityai/sdxl-turbo",
        "variant": "fp16",
        "solver": "euler-ancestral",
        "spacing": "trailing",
        "steps": 4,
    },
    "nitrosd-realism": {
        **BASE,
        "unet": f"{NITRO}/nitrosd-realism_unet.safetensors",
        "solver": "lcm-shift",
        "timestep_shift": 250,
        "steps": 4,
    },
    "nitrosd-vibrant": {
        **BASE,
        "unet": f"{NITRO}/nitrosd-vibrant_unet.safetensors",
        "solver": "lcm-shift",
        "timestep_shift": 500,
        "steps": 4,
    },
}


ONE_STEP_TIMESTEPS = {
    "dmd2-1step": 399,
    "hyper-sdxl-1step": 800,
    "hyper-sdxl-unified": 800,
    "lightning-1step": 999,
    "sdxl-turbo": 999,
    "nitrosd-realism": 249,
    "nitrosd-vibrant": 499,
}
"""The timestep at which each model's own code runs its one step. Sources: the models' cards."""


def moved_start(student: Any) -> Iterator[Remark]:
    """A note on published one-step weights that the shift runs elsewhere than they were made for.
    They are known by their file's name."""
    start, shift, first = student.start, student.timestep_shift, student.levels[0]
    name = start.rpartition("/")[2]
    for preset, own in ONE_STEP_TIMESTEPS.items():
        fields = PRESETS[preset]
        files = [fields[k] for k in ("unet", "lora") if k in fields] or [fields["model"]]
        runs_at = first * shift // 1000
        if runs_at != own and any(start == f or name == f.rpartition("/")[2] for f in files):
            said = (
                f"{name} ({preset}) makes its one step at t = {own}, and `timestep_shift: {shift}` "
                f"runs it at {runs_at:g}, which costs it quality until it has learnt better: warm "
                "it up by regression (`warmup.student`, `warmup.losses`), or set "
                f"`timestep_shift: {math.ceil(1000 * own / first)}`"
            )
            yield Remark(said, "start", is_error=False)


def with_preset(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The preset's fields, overridden by the given ones. Raises `KeyError` for an unknown name."""
    fields = {"guidance": 0.0, **PRESETS[name]}
    if "model" in given:
        fields.pop("variant")
    return fields | given


def unused_options(teacher: Any) -> Iterator[Remark]:
    """Fields of a teacher's config that its solver, or another field, leaves without effect."""
    solver = teacher.solver
    for field, owner in (("eta", "tcd"), ("timestep_shift", "lcm-shift")):
        if solver != owner:
            yield from without_effect(teacher, f"with solver {solver}; it is for {owner}", field)
    if solver in ("lcm", "lcm-shift", "tcd"):
        yield from without_effect(teacher, f"with solver {solver}, which has its own", "spacing")
    if teacher.timesteps is not None:
        yield from without_effect(teacher, "beside `timesteps`, which overrides it", "steps")
    if teacher.lora is None:
        yield from without_effect(teacher, "without `lora`", "lora_strength")


def unknown_targets(student: Any) -> Iterator[Remark]:
    """LoRA targets of which none can be the end of a layer's name, whatever the UNet's size. The
    names' last parts are compared, since a target may begin anywhere."""
    known = {layer.rpartition(".")[2] for layer in UNET_LAYERS}
    if known.isdisjoint(target.rpartition(".")[2] for target in student.targets):
        said = (
            f"no layer of a UNet has a name that ends in {' or '.join(student.targets)}; names end "
            f"in {', '.join(UNET_LAYERS)}"
        )
        yield Remark(said, "targets")


def unpublished_grid(student: Any) -> Iterator[Remark]:
    """A note on a student's grid that its published folder does not have."""
    if student.sampler != "renoise" or student.levels != LEVELS:
        said = (
            "the published folder's scheduler adds fresh noise at 999, 749, 499 and 249: other "
            "software will not draw as this recipe does"
        )
        field = "levels" if student.levels != LEVELS else "sampler"
        yield Remark(said, field, is_error=False)
