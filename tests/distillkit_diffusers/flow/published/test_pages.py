"""Pages beside exported files: which model they are for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from distillkit_diffusers.export.exporters import LoRAExporter, TransformerExporter
from tests.distillkit_diffusers.flow.tiny import Tiny
from tests.distillkit_diffusers.tiny import perturbed

PUBLISHED = {
    "z-image": "Tongyi-MAI/Z-Image-Turbo",
    "flux2": "black-forest-labs/FLUX.2-klein-4B",
}
"""Of each family a model that is not the first known one."""


def bases_named(network: Any, folder: Path, base: str | None = None) -> list[str]:
    """On the page of a LoRA, and of a transformer."""
    LoRAExporter("fp32", 2, base).export(network, 1000, folder / "lora.safetensors")
    TransformerExporter("fp32").export(network, 1000, folder / "whole.safetensors")
    pages = [(folder / f"{name}.md").read_text() for name in ("lora", "whole")]
    return [line for page in pages for line in page.splitlines() if line.startswith("base = ")]


@pytest.mark.usefixtures("no_hub")
def test_pages_name_the_teachers_model(
    kind: str, tiny: Tiny, folder: Path, teacher_config: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """One of the hub, here from its cache; of a folder, and of an exporter's own base, the last
    name."""
    cache, model = tmp_path / "cache" / f"models--{PUBLISHED[kind].replace('/', '--')}", "main"
    shutil.copytree(folder, cache / "snapshots" / model)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(model)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache.parent))
    fields = {"train": "lora", "rank": 2}
    for model, said in ((PUBLISHED[kind], PUBLISHED[kind]), (str(folder), folder.name)):
        teacher = teacher_config.model_copy(update={"model": model}).build()
        network = perturbed(tiny.student.model_validate(fields).build(teacher))
        lora, whole = bases_named(network, tmp_path)
        assert lora == whole
        assert lora.startswith(f'base = "{said}"  # ')
    shutil.copytree(folder, tmp_path / "mine")
    lora, whole = bases_named(network, tmp_path, str(tmp_path / "mine"))
    assert (lora.split()[2], whole.split()[2]) == ('"mine"', f'"{folder.name}"')
