"""The tiny pipelines in folders and as teachers, family by family; built once a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit_diffusers.flow.configs import FlowTeacherConfig
from tests.distillkit_diffusers.flow.tiny import KINDS, PIXELS, TOKENS, Tiny, build_pipeline
from tests.distillkit_diffusers.tiny import save


@pytest.fixture(scope="session", params=KINDS)
def kind(request: Any) -> str:
    """A family's name in recipes."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny(kind: str) -> Tiny:
    return KINDS[kind]


@pytest.fixture(scope="session")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the family's tiny random pipeline."""
    return save(lambda: build_pipeline(kind), tmp_path_factory.mktemp("models") / f"tiny-{kind}")


@pytest.fixture(scope="session")
def teacher_config(tiny: Tiny, folder: Path) -> FlowTeacherConfig:
    """Two steps, no guidance."""
    fields = {"model": str(folder), "dtype": "float32", "steps": 2, "guidance": 0}
    return tiny.teacher.model_validate({**fields, "max_tokens": TOKENS, "resolution": PIXELS})


@pytest.fixture(scope="session")
def teacher(teacher_config: FlowTeacherConfig) -> Any:
    """The tiny pipeline as a teacher. Shared: leave it as it is."""
    return teacher_config.build()
