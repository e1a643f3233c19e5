"""The contract checks pass what is in order, and name what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit import testing
from distillkit.configs import SOCKETS, ComponentConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.exporter import ExampleExporterConfig
from distillkit.examples.layout import ExampleLayoutConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.prompts import ExamplePromptsConfig
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.examples.refresh import ExampleRefreshConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.prompts.files import JsonlPrompts, ListPrompts, TextPrompts
from tests.distillkit.testing.flaws import flawed, said_of

EXAMPLES: tuple[ComponentConfig, ...] = (
    ExampleTeacherConfig(),
    ExampleStudentConfig(),
    ExampleBackboneConfig(),
    ExamplePoolConfig(),
    ExampleRefreshConfig(),
    ExampleLossConfig(),
    ExampleRefinementConfig(),
    ExamplePromptsConfig(),
    ExampleMetricsConfig(),
    ExampleExporterConfig(),
    ExampleLayoutConfig(),
)


def test_there_is_an_example_for_every_socket() -> None:
    assert [config.socket for config in EXAMPLES] == [base.socket for base in SOCKETS]


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: config.socket)
def test_the_examples_keep_their_contracts(config: ComponentConfig) -> None:
    testing.check(config)


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: config.socket)
def test_the_examples_are_plugins(config: ComponentConfig) -> None:
    testing.check_plugin(type(config).__module__)


def test_the_examples_train() -> None:
    testing.check_run()


def test_the_cores_own_prompts_keep_their_contract(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a cat"}\n')
    testing.check_plugin("distillkit.registry.builtin")
    testing.check(ListPrompts(prompts=["a cat", "off"]))
    testing.check(TextPrompts(path=str(tmp_path / "prompts.txt")))
    testing.check(JsonlPrompts(path=str(tmp_path / "prompts.jsonl")))


def test_a_value_that_is_read_is_told_with_its_line_and_the_rule() -> None:
    """The line is the innermost in the folder of the part, here of `flaws`."""

    def looks(sound: Any, batch: Any) -> Any:
        value = sound(batch)
        if value is not None:
            value.detach().item()
        return value

    said = said_of(flawed(ExampleLossConfig, critic=looks))
    assert (
        f"critic(): RuntimeError: Tensor.item() cannot be called on meta tensors ({__file__}:"
        in said
    )
    assert "Plans run parts on the meta device, where tensors have no values: no `.item()`" in said


def test_tensors_on_another_device_are_told_where_they_belong() -> None:
    def forgets(sound: Any, batch: Any) -> Any:
        value = sound(batch)
        mask_B = torch.ones(len(batch.fake_BCHW))
        return value if value is None else value + 0 * (batch.fake_BCHW[:, 0, 0, 0] * mask_B).sum()

    said = said_of(flawed(ExampleLossConfig, student=forgets))
    assert "a run on a GPU would stop here too: tensors are made on the device of what" in said
    assert "no `.item()`" not in said
