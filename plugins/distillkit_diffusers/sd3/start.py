"""The transformer that a student starts from, where it is not the teacher's."""

from __future__ import annotations

import copy
from typing import Any

import torch

from distillkit_diffusers.io.hub import Asset, locate
from distillkit_diffusers.io.tensor_names import what_is
from distillkit_diffusers.io.weights import keys_of
from distillkit_diffusers.sd3.loading import fuse_into, replace_weights


def load_start(spec: str, like: Any) -> Any:
    """A copy of `like` in float32 on the CPU, with the file's weights, or with its LoRA fused."""
    [path] = locate([Asset("student.start", spec, "file")])
    network = copy.deepcopy(like).to("cpu", torch.float32)
    if path.suffix == ".safetensors" and what_is(keys_of(path, "student.start")) == "a LoRA":
        fuse_into(network, path, "student.start")
    else:
        replace_weights(network, path, "student.start")
    return network
