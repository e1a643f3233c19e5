"""The tiny SDXL pipeline in a folder and as a teacher, and a machine without a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distillkit_diffusers.tiny import build_pipeline, save


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random StableDiffusionXLPipeline."""
    return save(build_pipeline, tmp_path_factory.mktemp("models") / "tiny-sdxl")


@pytest.fixture(scope="session")
def teacher(tiny_sdxl: Path) -> Any:
    """The tiny pipeline as a teacher, 8 DDIM steps. Shared: leave it as it is."""
    from distillkit_diffusers.teacher import load_teacher

    return load_teacher(tiny_sdxl)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing in the hub's cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
