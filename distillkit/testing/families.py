"""Contracts of what a model family brings: teacher, student, backbone.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, get_args

import torch

from distillkit.configs import ComponentConfig
from distillkit.contracts import Teacher
from distillkit.noising import NoiseSchedule, Prediction
from distillkit.testing.findings import (
    PROMPTS,
    Findings,
    close,
    moved_by_gradient,
    noise,
    same,
    seeded,
    shape_of,
    trained,
    weights_of,
    whole,
)
from distillkit.training.models.student import load_weights
from distillkit.values import Condition, Window

PICKLES = {".pt", ".pth", ".pkl", ".bin", ".ckpt"}


def teacher(config: ComponentConfig) -> Findings:
    """Shapes, ranges, determinism from the generators, and that everything freezes."""
    part: Teacher = config.build()  # type: ignore[attr-defined]
    if not isinstance(part.schedule, NoiseSchedule) or len(part.schedule) != 1000:
        yield "schedule: should be a NoiseSchedule of 1000 levels"
    listed = {id(p) for m in part.modules() for p in m.parameters()}
    if any(id(p) not in listed for p in part.denoiser.module.parameters()):
        yield "modules(): the denoiser's network is missing, so the trainer could not freeze it"
    for module in part.modules():
        module.requires_grad_(False).eval()
    before = weights_of(part.modules())
    cond = part.encode(PROMPTS)
    yield from _conditions(part, cond)
    x_T_BCHW = noise((3, *part.latent_shape), "x_T")
    x_0_BCHW, again, alone = (
        part.sample(x_T_BCHW[:n], cond[slice(0, n)], [seeded(b) for b in range(n)])
        for n in (3, 3, 1)
    )
    if x_0_BCHW.shape != x_T_BCHW.shape:
        yield f"sample(): gave {shape_of(x_0_BCHW)} for x_T {shape_of(x_T_BCHW)}"
    elif not torch.equal(x_0_BCHW, again):
        yield "sample(): differs between calls with the same x_T and generators"
    elif not close(x_0_BCHW[:1], alone):
        yield "sample(): a picture depends on what else is in its batch"
    if not bool(x_0_BCHW.isfinite().all()):
        yield "sample(): x_0 is not finite"
    yield from _denoiser("denoiser", part.denoiser, x_T_BCHW, cond)
    pictures = part.decode(x_0_BCHW)
    if pictures.ndim != 4 or pictures.shape[:2] != (3, 3):
        yield f"decode(): gave {shape_of(pictures)}, not (B, 3, height, width)"
    elif not 0 <= float(pictures.min()) <= float(pictures.max()) <= 1:
        yield "decode(): pictures leave the range [0, 1]"
    if not same(before, weights_of(part.modules())):
        yield "its weights moved while it was used: frozen should stay frozen"


def _conditions(part: Teacher, cond: Condition) -> Findings:
    null = part.null(2)
    if len(cond) != len(PROMPTS) or any(len(t) != len(PROMPTS) for t in cond.tensors.values()):
        yield "encode(): should give one row a prompt in every tensor"
    alone = part.encode(PROMPTS[:1])
    if any(not close(t[:1], alone.tensors[name]) for name, t in cond.tensors.items()):
        yield "encode(): a prompt's row depends on the other prompts"
    if any(t.requires_grad for t in cond.tensors.values()):
        yield "encode(): the condition asks for gradients"
    one, other = ({n: (*t.shape[1:], t.dtype) for n, t in c.tensors.items()} for c in (cond, null))
    if one != other:
        yield f"null(): tensors are {other}; encode() gives {one}"
    elif len(null) != 2:
        yield f"null(2): gave {len(null)} rows"


def _denoiser(what: str, denoiser: Any, x_BCHW: torch.Tensor, cond: Condition) -> Findings:
    if denoiser.prediction not in get_args(Prediction):
        yield f"{what}.prediction: {denoiser.prediction!r} is none of {get_args(Prediction)}"
    t_B = torch.full((len(x_BCHW),), 500)
    output = denoiser(x_BCHW, t_B, cond)
    if output.shape != x_BCHW.shape:
        yield f"{what}: gave {shape_of(output)} for x_t {shape_of(x_BCHW)}"
    elif not torch.equal(output, denoiser(x_BCHW, t_B, cond)):
        yield f"{what}: differs between two calls with the same input"


def student(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """It trains, the teacher does not; weights save and load; it publishes without pickles."""
    frozen = weights_of(taught_by.modules())
    part: Any = config.build(taught_by)  # type: ignore[attr-defined]
    x_BCHW, cond = noise((2, *taught_by.latent_shape), "x_T"), taught_by.encode(PROMPTS[:2])
    yield from _denoiser("student", part, x_BCHW, cond)
    theirs = {p.data_ptr() for m in taught_by.modules() for p in m.parameters()}
    named = {name: p for name, p in part.module.named_parameters() if p.requires_grad}
    if not named:
        yield "module: no parameter asks for gradients, so nothing would train"
        return
    if shared := [name for name, p in named.items() if p.data_ptr() in theirs]:
        yield f"module: {shared[0]} trains and is the teacher's too: copy it"
    t_B = torch.full((2,), 500)
    part(x_BCHW, t_B, cond).square().mean().backward()
    if without := [name for name, p in named.items() if p.grad is None]:
        yield f"module: no gradient reaches {without[0]} (and {len(without) - 1} more)"
    start = {name: p.detach().clone() for name, p in part.module.named_parameters()}
    torch.optim.SGD(named.values(), lr=0.1).step()
    if not same(frozen, weights_of(taught_by.modules())):
        yield "a step of the student moved the teacher"
    load_weights(part.module, start)
    twin: Any = config.build(taught_by)  # type: ignore[attr-defined]
    with torch.no_grad():
        load_weights(twin.module, start)
        if not torch.equal(twin(x_BCHW, t_B, cond), part(x_BCHW, t_B, cond)):
            yield "a second student with the same named parameters gives other outputs"
    yield from _published(part)


def _published(part: Any) -> Findings:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "student"
        part.publish(folder, 500)
        files = [f for f in folder.rglob("*") if f.is_file()]
        if not files:
            yield "publish(): wrote no file"
        for file in files:
            if file.suffix in PICKLES:
                yield f"publish(): {file.name} is a pickle: write safetensors"


def backbone(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """One map a level with its channels; gradients to x_t; each picture by itself; any window."""
    part: Any = config.build(taught_by)  # type: ignore[attr-defined]
    for module in part.modules():
        module.eval()
    before = weights_of(part.modules())
    C, H, W = taught_by.latent_shape
    cond, t_B = taught_by.encode(PROMPTS), torch.tensor([10, 500, 999])
    x_BCHW = noise((3, C, H, W), "x_t").requires_grad_()
    maps = part.features(x_BCHW, t_B, cond, whole(3, H, W))
    if len(maps) != len(part.channels):
        yield f"features(): {len(maps)} maps, but channels has {len(part.channels)} levels"
    for level, (map_BChw, channels) in enumerate(zip(maps, part.channels, strict=False)):
        if map_BChw.ndim != 4 or tuple(map_BChw.shape[:2]) != (3, channels):
            yield f"features(): level {level} is {shape_of(map_BChw)}, not (3, {channels}, h, w)"
        x_BCHW.grad = None
        if map_BChw.requires_grad:
            map_BChw.square().sum().backward(retain_graph=True)
        if not moved_by_gradient([x_BCHW]):
            yield f"features(): no gradient reaches x_t from level {level}"
    still = [p for m in part.modules() for p in m.parameters() if not p.requires_grad]
    if any(p.grad is not None for p in still):
        yield "modules(): a frozen parameter got a gradient"
    theirs = {p.data_ptr() for m in taught_by.modules() for p in m.parameters()}
    if any(p.data_ptr() in theirs for p in trained(part.modules())):
        yield "modules(): a parameter that trains is the teacher's too: copy it"
    with torch.no_grad():
        yield from _looks(part, taught_by, x_BCHW.detach(), t_B, cond, maps)
    if not same(before, weights_of(part.modules())):
        yield "its weights moved while it was used"


def _looks(
    part: Any, taught_by: Teacher, x_BCHW: torch.Tensor, t_B: Any, cond: Condition, maps: Any
) -> Findings:
    """The same pictures again, one alone, through a window, with no prompt, at fractional t."""
    _, H, W = taught_by.latent_shape
    again = part.features(x_BCHW, t_B, cond, whole(3, H, W))
    if not all(map(torch.equal, maps, again)):
        yield "features(): differ between two calls with the same input"
    alone = part.features(x_BCHW[:1], t_B[:1], cond[slice(0, 1)], whole(1, H, W))
    if not all(close(m[:1], a) for m, a in zip(maps, alone, strict=True)):
        yield "features(): a picture's maps depend on what else is in its batch"
    h, w = max(1, H // 2), max(1, W // 2)
    window = Window(torch.tensor([0, H - h, 0]), torch.tensor([0, 0, W - w]), h, w, H, W)
    part.features(x_BCHW[:, :, :h, :w], t_B + 0.5 - (t_B == 999) * 0.5, taught_by.null(3), window)
