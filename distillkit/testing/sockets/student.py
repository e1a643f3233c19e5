"""Contract of a student. Legend: B batch, C latent channels, H, W latent cells."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from distillkit.configs import ComponentConfig
from distillkit.contracts import Teacher
from distillkit.testing.building import built
from distillkit.testing.findings import (
    PROMPTS,
    Findings,
    Snapshot,
    calling,
    each,
    noise,
    same,
    strangers,
    weights_of,
)
from distillkit.testing.sockets.exporter import files_written, network_changes
from distillkit.testing.sockets.teacher import denoiser_findings
from distillkit.training.models.student import load_weights
from distillkit.values import Condition


def student_findings(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """It trains, the teacher does not; weights save and load; it publishes without pickles."""
    frozen = Snapshot(taught_by.modules())
    part, twin = (built(config, taught_by, process=p).part for p in (1, 2))
    if not same(weights_of([part.module]), weights_of([twin.module])):
        yield "build(): two processes start with different weights: seed them"
    x_BCHW, cond = noise((3, *taught_by.latent_shape), "x_T"), taught_by.encode(PROMPTS)
    yield from each(
        denoiser_findings("student", part, x_BCHW, cond),
        _trains(part, twin, taught_by, x_BCHW, cond),
        _wrapped(part, x_BCHW, cond),
        _published(part, config),
        (f"it changed the teacher: its {change}" for change in frozen.changes()),
    )


def _trains(part: Any, twin: Any, taught_by: Teacher, x_BCHW: Tensor, cond: Condition) -> Findings:
    """A step moves the student alone; its named parameters are all that it is."""
    frozen = weights_of(taught_by.modules())
    theirs = {p.data_ptr() for m in taught_by.modules() for p in m.parameters()}
    named = {name: p for name, p in part.module.named_parameters() if p.requires_grad}
    if not named:
        yield "module: no parameter asks for gradients, so nothing would train"
        return
    if shared := [name for name, p in named.items() if p.data_ptr() in theirs]:
        yield f"module: {shared[0]} trains and is the teacher's too: copy it"
    t_B = torch.full((len(x_BCHW),), 500)
    output = part(x_BCHW, t_B, cond)
    if strangers(output, part.module.parameters()):
        yield "module: a parameter that trains is not in it, and would be neither stepped nor saved"
    output.square().mean().backward()
    if without := [name for name, p in named.items() if p.grad is None]:
        yield f"module: no gradient reaches {without[0]} (and {len(without) - 1} more)"
    start = {name: p.detach().clone() for name, p in part.module.named_parameters()}
    torch.optim.SGD(named.values(), lr=0.1).step()
    if not same(frozen, weights_of(taught_by.modules())):
        yield "a step of the student moved the teacher"
    load_weights(part.module, start)
    with torch.no_grad():
        load_weights(twin.module, start)
        if not torch.equal(twin(x_BCHW, t_B, cond), part(x_BCHW, t_B, cond)):
            yield "a second student with the same named parameters gives other outputs"


class _Wrapper(nn.Module):
    """As torch's for several processes: it is called, and has nothing of the network's own."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.module(*args, **kwargs)


def _wrapped(part: Any, x_BCHW: Tensor, cond: Condition) -> Findings:
    """The trainer sets `module` to a wrapper, which exchanges gradients between processes."""
    own = part.module
    wrapper = _Wrapper(own)
    with calling("module: setting it, as the trainer does for several processes,"):
        part.module = wrapper
    try:
        with torch.no_grad(), calling("module: a call through the trainer's wrapper"):
            part(x_BCHW, torch.full((len(x_BCHW),), 500), cond)
        if not wrapper.calls:
            yield (
                "module: it is run past the trainer's wrapper, so that several processes would "
                "not exchange gradients: call `self.module`"
            )
    finally:
        part.module = own


def _published(part: Any, config: ComponentConfig) -> Findings:
    before = Snapshot([part.module])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "student"
        with calling("publish()"):
            part.publish(folder, 500)
        yield from files_written(folder, "publish()")
        other = Path(temporary) / "other" / "student"
        with calling("publish() with another timestep shift"):
            part.publish(other, 250)
        if _has_shifts(config) and _bytes(folder) == _bytes(other):
            yield (
                "publish(): writes the same for two timestep shifts: weights mean nothing without "
                "theirs, so it should stand in the folder"
            )
        names = {f.name for f in folder.parent.iterdir()}
        if beside := names - {folder.name, "other"}:
            yield f"publish(): left {min(beside)} beside its folder"
    yield from network_changes(part, before, "publish()")


def _has_shifts(config: ComponentConfig) -> bool:
    """Whether the family has more than one timestep shift."""
    fields = config.model_dump()
    try:
        for shift in (250, 500):
            type(config).model_validate(fields | {"timestep_shift": shift})
    except ValidationError:
        return False
    return True


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
