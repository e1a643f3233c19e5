"""What an iteration's calls are for, by label: bytes, FLOPs or seconds are counted under these.

Labels are those of a plan, so that what is measured stands beside what was planned.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Protocol

from torch import Tensor

from distillkit.training.build import Parts
from distillkit.training.train_state import TrainState

SAMPLING = "teacher: sampling"
"""Label of what the teacher's samples cost."""
CRITICS = "critics"
"""Label of what both players compute beside networks that have one of their own."""


class Labels(Protocol):
    """What counts."""

    def label(self, name: str) -> AbstractContextManager[None]:
        """Inside, what happens counts under `name`; the innermost label holds."""


def label_calls(parts: Parts, state: TrainState, labels: Labels) -> None:
    """From here on, what calls of the parts cost counts under a label of their own."""
    labelled(parts.teacher, "sample", SAMPLING, labels)
    labelled(parts.teacher, "encode", "text encoders", labels)
    if state.pictures is not None:
        labelled(parts.teacher, "encode_images", "encoding of pictures", labels)
    labelled(state.student.network.module, "forward", "student: forward", labels)
    for each in parts.critics:
        labelled(each.backbone, "features", "backbone: forward", labels)
    whole = state.accelerator.backward

    def backward(output: Tensor, **more: Tensor) -> None:
        player = "student" if "gradient" in more else "critic"
        with labels.label(f"{player}: backward"):
            whole(output, **more)

    state.accelerator.backward = backward
    labelled(state, "grad", "critics: backward to x_0-hat", labels)


def labelled(owner: Any, method: str, name: str, labels: Labels) -> None:
    """From here on, calls of the owner's method count under `name`."""
    call = getattr(owner, method)

    @wraps(call)
    def counted(*args: Any, **kwargs: Any) -> Any:
        with labels.label(name):
            return call(*args, **kwargs)

    setattr(owner, method, counted)
