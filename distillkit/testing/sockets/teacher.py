"""Contract of a teacher, and of any denoiser.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from distillkit.configs import ComponentConfig
from distillkit.noising import NoiseSchedule, Prediction
from distillkit.testing.building import built
from distillkit.testing.findings import (
    PROMPTS,
    Findings,
    Raised,
    Snapshot,
    calling,
    close,
    each,
    modules_of,
    noise,
    same,
    seeded,
    shape_of,
    tensors_of,
    unlisted,
)
from distillkit.training.guard.returns import check_samples
from distillkit.values import Condition

COUNT = len(PROMPTS)


def teacher_findings(config: ComponentConfig) -> Findings:
    """Shapes, ranges, determinism from the generators, and that everything freezes."""
    part = built(config)
    yield from _members(part)
    for module in modules_of(part):
        module.requires_grad_(False).eval()
    frozen = Snapshot(part.modules())
    cond = part.encode(PROMPTS)
    if not isinstance(cond, Condition) or not cond.tensors:
        yield f"encode(): gave {type(cond).__name__}, not a Condition with tensors"
        return
    x_T_BCHW = noise((COUNT, *part.latent_shape), "x_T")
    yield from each(
        _conditions(part, cond, config),
        _samples(part, x_T_BCHW, cond),
        denoiser_findings("denoiser", part.denoiser, x_T_BCHW, cond),
        _pictures(part, x_T_BCHW, cond),
        (f"modules(): its {change}" for change in frozen.changes()),
        _moves(part),
    )


def _members(part: Any) -> Findings:
    if not isinstance(part.schedule, NoiseSchedule) or len(part.schedule) != 1000:
        yield "schedule: should be a NoiseSchedule of 1000 levels"
    if len(part.latent_shape) != 3 or not all(type(n) is int and n > 0 for n in part.latent_shape):
        yield f"latent_shape: {part.latent_shape!r} is not (C, H, W)"
    listed = {id(p) for m in modules_of(part) for p in m.parameters()}
    if any(id(p) not in listed for p in part.denoiser.module.parameters()):
        yield "modules(): the denoiser's network is missing, so the trainer could not freeze it"
    yield from unlisted(part.part, part.modules())


def _samples(part: Any, x_T_BCHW: Tensor, cond: Condition) -> Findings:
    def sample(first: int, last: int) -> Tensor:
        rows = slice(first, last)
        with calling("sample()"):
            x_0_BCHW: Tensor = part.part.sample(
                x_T_BCHW[rows], cond[rows], [seeded(b) for b in range(first, last)]
            )
        return x_0_BCHW

    before, told = x_T_BCHW.clone(), tensors_of(cond)
    x_0_BCHW = sample(0, COUNT)
    if shape_of(x_0_BCHW) != tuple(x_T_BCHW.shape):
        yield f"sample(): gave {shape_of(x_0_BCHW)} for x_T {shape_of(x_T_BCHW)}"
        return
    if not torch.equal(before, x_T_BCHW):
        yield "sample(): wrote into x_T, which the student starts from too"
    if not same(told, tensors_of(cond)):
        yield "sample(): wrote into the condition, which the student gets too"
    if not bool(x_0_BCHW.isfinite().all()):
        yield "sample(): x_0 is not finite"
    elif not torch.equal(x_0_BCHW, sample(0, COUNT)):
        yield (
            "sample(): differs between calls with the same x_T and generators: picture b's noise "
            "comes from `generators[b]`"
        )
    elif not all(close(x_0_BCHW[b : b + 1], sample(b, b + 1)) for b in (0, COUNT - 1)):
        yield (
            "sample(): a picture depends on what else is in its batch; its noise comes from its "
            "own generator"
        )


def _conditions(part: Any, cond: Condition, config: ComponentConfig) -> Findings:
    if len(cond) != COUNT or any(len(t) != COUNT for t in cond.tensors.values()):
        yield "encode(): should give one row a prompt in every tensor"
    alone = part.encode(PROMPTS[-1:])
    if any(not close(t[-1:], alone.tensors[name]) for name, t in cond.tensors.items()):
        yield "encode(): a prompt's row depends on the other prompts"
    twice = part.encode([*PROMPTS, PROMPTS[0]])
    if any(len(t) != COUNT + 1 or not close(t[-1], t[0]) for t in twice.tensors.values()):
        yield "encode(): a prompt that comes twice should have two rows, and the same ones"
    if any(t.requires_grad for t in cond.tensors.values()):
        yield "encode(): the condition asks for gradients"
    yield from _null(part, cond, getattr(config, "has_null", True))
    yield from _masks(part, cond)


def _null(part: Any, cond: Condition, has_null: bool) -> Findings:
    """The unconditional condition is like the others, or there is none and the config says so."""
    null = part.null(2)
    if (null is not None) != has_null:
        said = "None" if null is None else "a condition"
        yield f"null(): gave {said}, and the config's `has_null` is {has_null}: let them agree"
    if null is None:
        return
    if not isinstance(null, Condition):
        raise Raised(f"null(): gave {type(null).__name__}, not a Condition")
    one, other = ({n: (*t.shape[1:], t.dtype) for n, t in c.tensors.items()} for c in (cond, null))
    if one != other:
        yield f"null(): tensors are {other}; encode() gives {one}"
    elif len(null) != 2 or any(len(t) != 2 for t in null.tensors.values()):
        yield f"null(2): gave {len(null)} rows"


def _masks(part: Any, cond: Condition) -> Findings:
    """Padding of a text must not matter to the denoiser."""
    x_BCHW = noise((len(cond), *part.latent_shape), "x_T")
    t_B = torch.full((len(cond),), 500)
    for name, mask_BL in cond.tensors.items():
        text = cond.tensors.get(name.removesuffix("_mask"))
        if not name.endswith("_mask"):
            continue
        if text is None or mask_BL.dtype != torch.bool or text.shape[:2] != mask_BL.shape:
            yield (
                f"encode(): {name} is {shape_of(mask_BL)} of {mask_BL.dtype}; a mask is of bool, "
                f"and says which entries of {name.removesuffix('_mask')} (B, L, ...) are text"
            )
            continue
        other = torch.where(_as_wide(mask_BL, text), text, torch.randn_like(text))
        padded = Condition({**cond.tensors, name.removesuffix("_mask"): other})
        with torch.no_grad():
            one, two = (part.denoiser(x_BCHW, t_B, c).float() for c in (cond, padded))
        if not close(one, two):
            yield f"denoiser: what stands where {name} is false changes its output"


def _as_wide(mask_BL: Tensor, like_BLX: Tensor) -> Tensor:
    return mask_BL.view(*mask_BL.shape, *[1] * (like_BLX.ndim - 2))


def _pictures(part: Any, x_0_BCHW: Tensor, cond: Condition) -> Findings:
    """Latents as pictures, with gradients; and pictures as latents."""
    with torch.no_grad():
        x_0_BCHW = part.sample(x_0_BCHW, cond, [seeded(b) for b in range(COUNT)])
    before, x_0_BCHW = x_0_BCHW.detach().clone(), x_0_BCHW.detach().requires_grad_()
    images_B3HW = part.decode(x_0_BCHW)
    wanted = (COUNT, 3, *part.image_size)
    if shape_of(images_B3HW)[:2] != (COUNT, 3) or images_B3HW.ndim != 4:
        yield f"decode(): gave {shape_of(images_B3HW)}, not (B, 3, height, width)"
        return
    if shape_of(images_B3HW) != wanted:
        yield f"image_size: {part.image_size} is not the size that decode() gives"
    shown_B3HW = images_B3HW.detach()
    if not 0 <= float(shown_B3HW.min()) <= float(shown_B3HW.max()) <= 1:
        yield "decode(): pictures leave the range [0, 1]"
    if not images_B3HW.requires_grad:
        yield (
            "decode(): no gradient reaches x_0 from the pictures, so that critics that see "
            "pictures would teach nothing: do not detach, and turn no gradients off"
        )
    with torch.no_grad():
        first_13HW = part.decode(x_0_BCHW.detach()[:1])
    if not torch.equal(before, x_0_BCHW.detach()):
        yield "decode(): wrote into x_0, which others are given too"
    elif not close(shown_B3HW[:1], first_13HW):
        yield "decode(): a picture depends on what else is in its batch"
    yield from _encoded(part, shown_B3HW.clamp(0, 1), shape_of(x_0_BCHW))


@torch.no_grad()
def _encoded(part: Any, images_B3HW: Tensor, wanted: tuple[int, ...]) -> Findings:
    """Pictures as latents."""
    before = images_B3HW.clone()
    latents_BCHW, alone = part.encode_images(images_B3HW), part.encode_images(images_B3HW[1:2])
    if not torch.equal(before, images_B3HW):
        yield "encode_images(): wrote into the pictures, which others are given too"
    elif shape_of(latents_BCHW) != wanted:
        yield f"encode_images(): gave {shape_of(latents_BCHW)}, not latents {wanted}"
    elif flaw := check_samples(latents_BCHW, wanted):
        yield f"encode_images(): {flaw}"
    elif not close(latents_BCHW[1:2], alone):
        yield (
            "encode_images(): a picture's latents depend on what else is in its batch, or on "
            "random numbers: of a distribution of latents take the mean"
        )


def denoiser_findings(what: str, part: Any, x_BCHW: Tensor, cond: Condition) -> Findings:
    """Its output has the latents' shape, and a picture's depends on that picture alone."""
    if part.prediction not in get_args(Prediction):
        kinds = ", ".join(get_args(Prediction))
        yield f"{what}: prediction: {part.prediction!r} is none of {kinds}"
    t_B, before, told = torch.full((len(x_BCHW),), 500), x_BCHW.clone(), tensors_of(cond)
    with torch.no_grad(), calling(f"{what}: a call"):
        output, again = (part(x_BCHW, t_B, cond) for _ in range(2))
        alone = part(x_BCHW[:1], t_B[:1], cond[slice(0, 1)])
    if shape_of(output) != tuple(x_BCHW.shape):
        yield f"{what}: gave {shape_of(output)} for x_t {shape_of(x_BCHW)}"
        return
    if not torch.equal(x_BCHW, before):
        yield f"{what}: wrote into x_t"
    if not same(told, tensors_of(cond)):
        yield f"{what}: wrote into the condition, which critics and losses see too"
    if not bool(output.isfinite().all()):
        yield f"{what}: its output is not finite"
    elif not torch.equal(output, again):
        yield f"{what}: differs between two calls with the same input"
    elif not close(output[:1].float(), alone.float()):
        yield f"{what}: a picture's output depends on what else is in its batch"


def _moves(part: Any) -> Findings:
    """Every network that is not offloaded goes where the trainer sends it."""
    with calling("to()"):
        part.part.to("meta")
    waits = {id(p) for m in getattr(part.part, "offloaded", list)() for p in m.parameters()}
    tensors = [p for m in part.modules() for p in m.parameters() if id(p) not in waits]
    if any(not t.is_meta for t in tensors):
        yield "to(): a network of modules() stayed where it was"
