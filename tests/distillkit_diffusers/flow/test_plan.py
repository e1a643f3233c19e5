"""A plan's peak is that of a real iteration, for networks that take lists and tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from distillkit.memory.plan import make_plan
from distillkit.memory.tracker import MemoryTracker
from distillkit.recipe.load import load_recipe
from distillkit.training.build import build_parts, make_schedule, make_train_state
from distillkit.training.step import train_step
from tests.distillkit_diffusers.flow.tiny import PROMPTS

RECIPE = """\
prompts: {{type: list, prompts: [{prompt}, {prompt}]}}
teacher: {{type: {kind}, model: {model}, dtype: float32, steps: 2, guidance: 2, resolution: 32,
  max_tokens: 32}}
student: {{type: {kind}, train: {train}, rank: 2, gradient_checkpointing: true}}
backbone: {{type: dit, gradient_checkpointing: true}}
pool: {{type: dynamic, timesteps: [10, 500], heads_per_slot: 2, width: 64, depth: 1}}
losses: [{{type: hinge}}]
refinement: {{type: bottom-up, stages: {{1: 2, 2: 2}}}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run: {{batch: 2, accumulate: 2, threads: 1}}
"""


@pytest.mark.parametrize("train", ["full", "lora"])
def test_the_peak_is_that_of_a_real_iteration(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: str
) -> None:
    """Every storage on the CPU in a real iteration; moments, which come last, are left out. The
    prompts fill all tokens: a plan takes a text to be as long as it may be."""
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(kind=kind, model=folder, train=train, prompt=PROMPTS[1]))
    recipe = load_recipe(file).recipe
    parts, plan = build_parts(recipe), make_plan(recipe)
    state = make_train_state(recipe, parts, Accelerator(cpu=True))
    for step in ("step_critics", "step_student"):
        monkeypatch.setattr(state, step, lambda *_: None)
    [critic] = state.critics
    networks = [*parts.teacher.modules(), state.student.network.module, critic.pool.heads]
    tensors = [t for m in networks for t in (*m.parameters(), *m.buffers())]
    tracker = MemoryTracker("cpu")
    tracker.own("weights", tensors)
    with tracker:
        train_step(0, make_schedule(recipe, parts).spec(0), state)
    moments = sum(part.optimizer for part in plan.parts)
    assert plan.peak - moments == pytest.approx(sum(tracker.peak.values()), rel=0.1)
