"""The tiny SD3 pipeline in a folder and as a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from tests.distillkit_diffusers.sd3.tiny import T5_TOKENS, build_pipeline
from tests.distillkit_diffusers.tiny import save


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random StableDiffusion3Pipeline."""
    return save(build_pipeline, tmp_path_factory.mktemp("models") / "tiny-sd3")


@pytest.fixture(scope="session")
def teacher_config(tiny_sd3: Path) -> SD3TeacherConfig:
    """Two steps, no guidance."""
    return SD3TeacherConfig(
        model=str(tiny_sd3), dtype="float32", steps=2, guidance=0, max_tokens=T5_TOKENS
    )


@pytest.fixture(scope="session")
def teacher(teacher_config: SD3TeacherConfig) -> Any:
    """The tiny pipeline as a teacher. Shared: leave it as it is."""
    return teacher_config.build()
