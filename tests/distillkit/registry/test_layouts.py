"""Which model family a file belongs to, and what is said where that can't be told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distillkit.errors import UserError
from distillkit.examples.layout import ExampleLayout, ExampleLayoutConfig
from distillkit.exchange import Layout
from distillkit.registry.layouts import choose_layout, installed_layouts
from distillkit.registry.registry import Origin, Registry

LAYOUTS: dict[str, Layout] = {"one": ExampleLayout("one."), "two": ExampleLayout("two.")}


def weights(path: Path, prefix: str) -> str:
    save_file({f"{prefix}conv.weight": torch.zeros(1)}, path)
    return str(path)


def test_the_installed_families_are_built_with_their_defaults() -> None:
    registry = Registry()
    registry.add(ExampleLayoutConfig, Origin("mine"))
    assert installed_layouts(registry) == {"example": ExampleLayout("denoiser.")}


def test_a_family_is_named_or_recognised_by_weights_or_model(tmp_path: Path) -> None:
    """Weights come first: a model's own may be of a form that another family recognises too."""
    one, two = weights(tmp_path / "a.safetensors", "one."), weights(tmp_path / "b.st", "two.")
    assert choose_layout(LAYOUTS, "one", "owner/model", two) is LAYOUTS["one"]
    assert choose_layout(LAYOUTS, None, one, None) is LAYOUTS["one"]
    assert choose_layout(LAYOUTS, None, one, two) is LAYOUTS["two"]
    assert choose_layout(LAYOUTS, None, "owner/model", two) is LAYOUTS["two"]


def test_the_only_family_needs_no_name() -> None:
    alone = {"one": LAYOUTS["one"]}
    assert choose_layout(alone, None, "owner/model", None) is LAYOUTS["one"]


def test_what_can_not_be_told_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--family tow: no such family; did you mean 'two'\?"):
        choose_layout(LAYOUTS, "tow", "owner/model", None)
    with pytest.raises(UserError, match=r"owner/model: .* --family \(one, two\)"):
        choose_layout(LAYOUTS, None, "owner/model", None)
    other = weights(tmp_path / "c.safetensors", "three.")
    with pytest.raises(UserError, match=r"owner/model: .* --family \(one, two\)"):
        choose_layout(LAYOUTS, None, "owner/model", other)
