"""What a student learnt, put onto another checkpoint (paper, section 4.6), file to file.

W_new = W_custom + strength * (W_student - W_base) for every tensor of the denoiser, summed in
float32. Files are mapped into memory and read one tensor at a time, and the result is written as it
is made: no model is ever in memory as a whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from distillkit.atomic import appearing
from distillkit.errors import UserError
from distillkit.exchange import SHIFT_KEY, Layout, agreed_shift, shift_of_file
from distillkit.recipe.load import load_models
from distillkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
BITS |= {"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}


@dataclass
class Source:
    """An open file of weights."""

    role: str
    """What the file is here, as the command names it: `--student`."""
    path: Path
    file: Any
    """safetensors' handle."""
    names: Mapping[str, str]
    """Shared name of a denoiser's tensor -> the file's key."""
    metadata: dict[str, str]

    def tensor(self, key: str) -> Tensor:
        """A tensor, mapped from the file."""
        return read(self.file, key)

    def form(self, key: str) -> tuple[str, list[int]]:
        """Number format and shape, from the file's header."""
        part = self.file.get_slice(key)
        return part.get_dtype(), part.get_shape()


def transfer(
    student: Path,
    base: Path,
    onto: Path,
    out: Path,
    strength: float,
    layouts: Sequence[Layout],
    shift: int | None = None,
) -> int | None:
    """Write `out`: the file `onto` with the student's difference to `base` added.

    Everything else of `onto`, number formats and metadata too, stays as it is. Returns the
    student's timestep shift, which also goes into the metadata; for `shift` see `learnt_shift`.
    Raises `UserError`.
    """
    check_strength(strength, "--strength")
    with (
        opened(student, "--student", layouts) as learnt,
        opened(base, "--base", layouts) as start,
        opened(onto, "--onto", layouts) as custom,
    ):
        _compare(custom, learnt)
        _compare(custom, start)
        shift = learnt_shift(student, shift, layouts)
        metadata = dict(custom.metadata) | ({} if shift is None else {SHIFT_KEY: str(shift)})
        shared = {key: name for name, key in custom.names.items()}
        with appearing(out) as temporary, temporary.open("wb") as target:
            for key in _write_header(target, custom, metadata):
                tensor = custom.tensor(key)
                if key in shared:
                    name = shared[key]
                    change = learnt.tensor(learnt.names[name]).float()
                    change -= start.tensor(start.names[name]).float()
                    tensor = tensor.float().add(change, alpha=strength).to(tensor.dtype)
                target.write(_bytes(tensor))
    return shift


def check_strength(strength: float, option: str) -> None:
    """`UserError` for NaN and infinity, which would make every weight NaN."""
    if not math.isfinite(strength):
        raise UserError(f"{option} {strength}: a finite number, such as 0.8")


def learnt_shift(student: Path, given: int | None, layouts: Sequence[Layout]) -> int | None:
    """The timestep shift of the student's weights, as stated by their file, or by the published
    folder or the run that it lies in; or else `given`. Raises `UserError` where the two differ.
    """
    if shift_of_file(student) is not None:
        return agreed_shift(student, given, layouts)
    around = student.resolve().parents[:3]
    for folder in around[:2]:  # a file of a published folder, or of a network's folder in it
        if any(layout.recognises(folder) for layout in layouts):
            return agreed_shift(folder, given, layouts)
    run = next((up for up in around if (up / "run.json").is_file()), None)
    if run is None:
        return given
    stated = load_models(RunFolder(run).recipe).student.timestep_shift
    if given not in (None, stated):
        raise UserError(
            f"--shift {given}: the run {run} states that its student goes with timestep shift "
            f"{stated}; leave --shift out"
        )
    return stated


@contextmanager
def opened(path: Path, role: str, layouts: Sequence[Layout]) -> Iterator[Source]:
    """The file, if it holds a denoiser that one of the layouts knows. Raises `UserError`."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise UserError(f"{role}: {path} is a folder; name the .safetensors file in it")
    if not path.is_file():
        raise UserError(f"{role}: there is no file {path}")
    if path.suffix != ".safetensors":
        raise UserError(
            f"{role}: {path} is no .safetensors file; pickled files can't be read one tensor at a "
            "time, and may run code: get its .safetensors form"
        )
    try:
        file: Any = safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{role}: {path} cannot be read: {error}; it may be cut short: fetch it again"
        ) from None
    with file:
        keys = set(file.keys())
        names = next(filter(None, (layout.names(keys) for layout in layouts)), None)
        if not names:
            kinds = [layout.what_is(keys) for layout in layouts]
            kind = next((k for k in kinds if k != "something else"), "something else")
            raise UserError(
                f"{role}: {path} is {kind}, and a denoiser or a whole checkpoint is needed"
            )
        yield Source(role, path, file, names, file.metadata() or {})


def read(file: Any, key: str) -> Tensor:
    """A tensor of an open file."""
    tensor: Tensor = file.get_tensor(key)
    return tensor


def _compare(custom: Source, other: Source) -> None:
    """Both hold the same network."""
    absent, foreign = custom.names.keys() - other.names.keys(), other.names.keys() - custom.names
    if absent or foreign:
        name = min(absent or foreign)
        raise UserError(
            f"{other.role}: {other.path} is another network than {custom.path} ({custom.role}): "
            f"{len(absent)} tensors are absent and {len(foreign)} do not belong, such as {name}"
        )
    for name, key in custom.names.items():
        here, there = custom.form(key)[1], other.form(other.names[name])[1]
        if here != there:
            raise UserError(
                f"{other.role}: {other.path} is of another size than {custom.path} "
                f"({custom.role}): {other.names[name]} is {there}, and {key} is {here}"
            )


def _write_header(target: BinaryIO, custom: Source, metadata: Mapping[str, str]) -> list[str]:
    """Names, formats and places of all tensors; returns the keys in the order of the places.

    Widest numbers first, so that every tensor starts at a multiple of its numbers' size.
    """
    forms = {key: custom.form(key) for key in custom.file.keys()}  # noqa: SIM118
    keys = sorted(forms, key=lambda key: (-BITS[forms[key][0]], key))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for key in keys:
        dtype, shape = forms[key]
        size = math.prod(shape) * BITS[dtype] // 8
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(len(text).to_bytes(8, "little"))
    target.write(text)
    return keys


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
