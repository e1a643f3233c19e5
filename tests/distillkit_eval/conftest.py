"""Every metrics part with small stand-ins of its weights."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from distillkit_eval.configs import (
    AestheticConfig,
    AppearanceConfig,
    ClipConfig,
    DinoConfig,
    DiversityConfig,
    EvalConfig,
    FidConfig,
    HpsConfig,
    ImageRewardConfig,
    PatchFidConfig,
    PickConfig,
)
from tests.distillkit_eval import standins


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, and a file of prompts."""
    folder = tmp_path_factory.mktemp("models")
    standins.save_clip(folder / "clip")
    standins.save_tokenizer(folder / "tokenizer")
    standins.save_bert_tokenizer(folder / "bert")
    standins.save_dino(folder / "dino")
    torch.save({"state_dict": standins.open_clip_tensors()}, folder / "hps.pt")
    torch.save(standins.head_tensors(standins.JOINT), folder / "head.pth")
    torch.save(standins.blip_tensors(), folder / "reward.pt")
    torch.save(torch.ones(27), folder / "inception.pth")
    (folder / "prompts.txt").write_text("".join(f"a cat {c}\n" for c in "abcdefgh"))
    return folder


@pytest.fixture
def inception(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity, which brings torchvision, is not among what the tests install."""
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = standins.FakeInception  # type: ignore[attr-defined]
    package = ModuleType("torch_fidelity")
    package.__spec__ = ModuleSpec("torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention heads of 8 channels, which published files do not tell."""
    for name in ("open_clip.VISION_HEAD", "open_clip.TEXT_HEAD", "image_reward.HEAD"):
        monkeypatch.setattr(f"distillkit_eval.metrics.{name}", 8)


@pytest.fixture
def configs(models: Path, inception: None, small_heads: None) -> dict[str, EvalConfig]:
    """Every part by its name."""
    prompts = {"prompts": str(models / "prompts.txt"), "batch": 3, "num_images": 8}
    clip, tokenizer = str(models / "clip"), str(models / "tokenizer")
    weights = str(models / "inception.pth")
    made: list[EvalConfig] = [
        AppearanceConfig(**prompts),
        ClipConfig(**prompts, model=clip),
        PickConfig(**prompts, model=clip, tokenizer=tokenizer),
        HpsConfig(**prompts, model=str(models / "hps.pt"), tokenizer=tokenizer),
        AestheticConfig(**prompts, model=clip, head=str(models / "head.pth")),
        ImageRewardConfig(
            **prompts, model=str(models / "reward.pt"), tokenizer=str(models / "bert")
        ),
        DinoConfig(**prompts, model=str(models / "dino")),
        DiversityConfig(**prompts, model=str(models / "dino")),
        FidConfig(**prompts, weights=weights),
        PatchFidConfig(**prompts, weights=weights, size=16),
    ]
    return {config.name(): config for config in made}
