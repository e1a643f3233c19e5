"""A transformer's tensors by their authors' names: what diffusers' `from_single_file` undoes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit_diffusers.flow.family import OriginalNames


def original_transformer(tensors: Mapping[str, Tensor], names: OriginalNames) -> dict[str, Tensor]:
    """The tensors under the original names, fused and turned around as the originals are."""
    numbers = [int(n) for key in tensors for n in re.findall(r"^transformer_blocks\.(\d+)\.", key)]
    last = str(max(numbers, default=0))
    swapped = [_pattern(name.replace("$", last)) for name in names.swapped]
    renamed = [(_pattern(here), _template(there)) for here, there in names.renamed.items()]
    fused = [
        (_pattern(names_of[0]), [_template(n) for n in (*names_of, there)])
        for names_of, there in names.fused.items()
    ]
    absorbed = [_pattern(name) for names_of in names.fused for name in names_of[1:]]
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if any(pattern.match(key) for pattern in absorbed):
            continue
        if any(pattern.match(key) for pattern in swapped):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        for pattern, parts in fused:
            if pattern.match(key):
                *own, there = (pattern.sub(part, key) for part in parts)
                found[there] = torch.cat([tensors[name] for name in own])
                break
        else:
            found[_renamed(key, renamed)] = tensor
    return found


def _renamed(key: str, names: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, there in names:
        if pattern.match(key):
            return pattern.sub(there, key)
    return key


def _pattern(name: str) -> re.Pattern[str]:
    """Matches what begins with this name, up to a dot or the end."""
    return re.compile("^" + re.escape(name).replace(r"\*", r"(\d+)") + r"(?=\.|$)")


def _template(name: str) -> str:
    return name.replace("*", r"\1")
