"""Where an iteration makes the host and a GPU wait for each other: counted without a GPU.

On the meta device tensors have shapes and no values, as if on a GPU that can't be asked; everything
that goes there from the CPU is a transfer. Each is one that was meant; a new one fails here.
"""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from distillkit.memory.dry_run import dry_run
from distillkit.recipe.load import load_recipe
from distillkit.training.metrics import StepMetrics
from distillkit.training.step import critic_gradients, make_batch, student_gradients, train_step
from tests.distillkit.world import trainer, world_recipe

RECIPE = """\
prompts: {{type: list, prompts: [a ring, two bars]}}
teacher: {{type: sdxl, model: {model}, dtype: float32, steps: 2}}
student: {{type: unet, start: teacher, timestep_shift: 500}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, levels: [0, 2], width: 16, depth: 1}}
losses: [{{type: hinge}}]
refinement: {{type: fixed, steps: 1, iterations: 2}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run: {{batch: 2}}
"""


class Transfers(TorchDispatchMode):
    """Tensors of the CPU that are copied to the meta device, by `sent` or by others."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **kwargs or {})
        copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        source = next((t for t in reversed(args) if isinstance(t, Tensor)), None)
        if copies and out.is_meta and source is not None and not source.is_meta:
            callers = [frame.name for frame in traceback.extract_stack()]
            self.found["sent" if "sent" in callers else "others"] += 1
        return out


def test_an_iteration_sends_the_device_what_was_drawn_and_no_more(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    """All but the tokens go by `sent`: from pinned memory, without waiting."""
    (tmp_path / "tiny.yaml").write_text(RECIPE.format(model=tiny_sdxl))
    dry = dry_run(load_recipe(tmp_path / "tiny.yaml").recipe)
    state, spec = dry.state, dry.schedule.spec(0)
    with Transfers() as transfers, state.accelerator.cuda, state.micro_batch(last=True):
        batch = make_batch(state, spec, 0, 0, dry.panels)
        critic_gradients(state, spec, batch, StepMetrics(spec))
        student_gradients(state, spec, batch, StepMetrics(spec))
    # Sent: x_T and the renoising; two timesteps of the teacher; for each of two sizes of crops t*
    # and noise once, and the ids of real and fake. Encoded: tokens for two text encoders.
    assert transfers.found == {"sent": 2 + 2 + 2 * (2 + 2), "others": 2}


READS = ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")


class Reads(TorchFunctionMode):
    """Calls that bring values to the host, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS:
            self.found[name] += 1
        return func(*args, **kwargs or {})


def test_an_iteration_reads_the_device_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the micro-batch nothing is read (above); then all measurements at once."""
    run = trainer(world_recipe(losses=[{"type": "hinge"}, {"type": "regression"}]), tmp_path)
    found: Counter[str] = Counter()

    def counted(name: str) -> None:
        inner = getattr(run.state, name)

        def call(*args: Any) -> None:
            with Reads() as reads:
                inner(*args)
            found.update(reads.found)

        monkeypatch.setattr(run.state, name, call)

    for name in ("finish_gradients", "step_critics", "step_student"):
        counted(name)
    train_step(0, run.schedule.spec(0), run.state)
    assert found == {"tolist": 1, "__int__": 1}  # the average's age is counted on the host
