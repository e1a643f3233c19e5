"""The UNets of a run under `run.compile`: whole, as a LoRA, with checkpoints within them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from distillkit.recipe.load import load_recipe
from distillkit.training.build import build_parts, make_schedule, make_train_state
from distillkit.training.metrics import StepMetrics
from distillkit.training.models.compiled import regions
from distillkit.training.step import train_step
from tests.distillkit_diffusers.tiny import build_shallow_pipeline, save

pytestmark = pytest.mark.slow

RECIPE = """\
prompts: {{type: list, prompts: [a ring, two bars]}}
teacher: {{type: sdxl, model: {model}, dtype: float32, steps: 2}}
student: {{type: unet, start: teacher, rank: 2, timestep_shift: 500}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, levels: [0, 2], width: 16, depth: 1, zero_init: false}}
losses: [{{type: hinge}}]
refinement: {{type: fixed, steps: 1, iterations: 2}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run: {{batch: 2}}
"""


@pytest.fixture(autouse=True)
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each layer is traced anew for every use."""
    return save(build_shallow_pipeline, tmp_path_factory.mktemp("small"))


def two_iterations(file: Path, sets: Sequence[str]) -> tuple[list[StepMetrics], dict[str, Tensor]]:
    recipe = load_recipe(file, sets).recipe
    parts = build_parts(recipe)
    state = make_train_state(recipe, parts, Accelerator(cpu=True))
    schedule = make_schedule(recipe, parts)
    critics = [m for critic in state.critics for m in critic.backbone.modules()]
    for network in (state.student.network.module, parts.teacher.denoiser.module, *critics):
        layers = {type(m).__name__ for m in regions(network)}
        assert layers == {"BasicTransformerBlock"}, "layer by layer, never a whole network"
    found = [train_step(i, schedule.spec(i), state) for i in range(2)]
    return found, state.student.network.module.state_dict()


@pytest.mark.parametrize(
    "sets",
    [
        (),
        (
            "student.train=lora",
            "student.gradient_checkpointing=true",
            "backbone.gradient_checkpointing=true",
        ),
        ("student.train=lora", "teacher.bits=4"),
    ],
    ids=["full", "lora with checkpoints", "lora on 4 bits"],
)
def test_a_compiled_iteration_has_the_losses_of_one_that_is_not(
    small: Path, tmp_path: Path, sets: Sequence[str]
) -> None:
    from torch._dynamo.utils import counters

    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(model=small))
    plain, weights = two_iterations(file, sets)
    counters.clear()
    compiled, same = two_iterations(file, [*sets, "run.compile=eager"])
    assert counters["stats"]["unique_graphs"] >= 3  # student, backbone, teacher
    assert not counters["graph_break"]
    assert weights.keys() == same.keys()
    for one, other in zip(plain, compiled, strict=True):
        assert other.student == pytest.approx(one.student, rel=1e-3, abs=1e-5)
        assert other.critic == pytest.approx(one.critic, rel=1e-3)
        for player in ("student", "critic"):
            assert other.norm(player) == pytest.approx(one.norm(player), rel=1e-2)
