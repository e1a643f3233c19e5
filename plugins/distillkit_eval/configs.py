"""The parts' fields. A model is a path, or a name on the Hugging Face hub where that is reached."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from distillkit.configs import MetricsConfig
from distillkit.contracts import Metrics
from distillkit.remarks import Remark
from distillkit_eval.loading import missing_file, missing_package

CLIP_FILES = ("config.json",)
HPS_FILE, REWARD_FILE = "HPS_v2.1_compressed.pt", "ImageReward.pt"
AESTHETIC_FILE = "sac+logos+ava1-l14-linearMSE.pth"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


class EvalConfig(MetricsConfig):
    """What all of these metrics have."""

    same_result: ClassVar[Collection[str]] = (*MetricsConfig.same_result, "batch", "device")
    prompts: str | None = None
    """File of prompts, one a line, for recipes whose first metrics part this is; training must not
    see them. `distillkit eval` has prompts of its own."""
    batch: int = Field(32, ge=1)
    """Pictures that go through the metric's network at a time."""
    device: str | None = None
    """Where the network runs; without it on the GPU, or the CPU where there is none."""

    @property
    def needs_teacher(self) -> bool:
        return False

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from missing_file(self.prompts, "prompts")
        for field, names in self.files().items():
            yield from missing_file(getattr(self, field), field, names)

    def files(self) -> dict[str, tuple[str, ...]]:
        """Fields that name models -> files that must be in them."""
        return {}

    def inputs(self) -> Iterable[str]:
        for field in self.files():
            yield str(getattr(self, field))


class DistanceConfig(EvalConfig):
    """What distances between sets of pictures have."""

    num_images: int = Field(2000, ge=8)
    """Pictures behind every row; with fewer than some thousand, distances depend on the number."""
    reference: str | None = None
    """Folder of real pictures to compare with."""
    teacher: bool = True
    """Whether to compare with the teacher's pictures too."""

    @property
    def needs_teacher(self) -> bool:
        return self.teacher

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        if self.reference is not None and not Path(self.reference).is_dir():
            yield Remark(f"there is no folder {self.reference}", "reference")
        if self.reference is None and not self.teacher:
            said = "nothing to compare with: give real pictures (--reference), or the teacher's"
            yield Remark(f"{said} (--teacher)", "reference")

    def inputs(self) -> Iterable[str]:
        yield from super().inputs()
        yield from [self.reference] if self.reference else []


class FidConfig(DistanceConfig):
    """FID, KID, precision and recall, in Inception's features by torch-fidelity."""

    type: Literal["fid"] = "fid"
    weights: str | None = None
    """File of Inception's weights, weights-inception-2015-12-05-6726825d.pth; without it the one in
    torch's hub cache, or a download."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        yield from missing_package("torch_fidelity", "torch-fidelity")
        yield from missing_file(self.weights, "weights")

    def inputs(self) -> Iterable[str]:
        yield from super().inputs()
        yield from [self.weights] if self.weights else []

    def build(self) -> Metrics:
        from distillkit_eval.metrics.fid import build

        return build(self, "fid", None)


class PatchFidConfig(FidConfig):
    """FID of patches at full resolution: detail that is lost at 299 pixels (SDXL-Lightning)."""

    type: Literal["patch-fid"] = "patch-fid"  # type: ignore[assignment]
    size: int = Field(299, ge=16)
    """Side of the patch in the middle of each picture, in pixels; it is not resized if 299."""

    def build(self) -> Metrics:
        from distillkit_eval.metrics.fid import build

        return build(self, "patch_fid", self.size)


class DinoConfig(DistanceConfig):
    """Fréchet distance in DINOv2's features, which follow people's judgement better than FID."""

    type: Literal["dino"] = "dino"
    model: str = "facebook/dinov2-large"
    """The network."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"model": CLIP_FILES}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.dino import build

        return build(self)


class ClipConfig(EvalConfig):
    """CLIP score: how well pictures fit their prompts."""

    type: Literal["clip"] = "clip"
    model: str = "openai/clip-vit-base-patch32"
    """The network with its tokenizer; the paper's is ViT-B/32."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"model": CLIP_FILES}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.clip import build_clip

        return build_clip(self)


class PickConfig(EvalConfig):
    """PickScore: which pictures people chose, by a network that learned it from their choices."""

    type: Literal["pick"] = "pick"
    model: str = "yuvalkirstain/PickScore_v1"
    """The network."""
    tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Its tokenizer."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"model": CLIP_FILES, "tokenizer": ()}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.clip import build_pick

        return build_pick(self)


class HpsConfig(EvalConfig):
    """HPSv2.1: people's preferences, in open-clip's file, run by transformers."""

    type: Literal["hps"] = "hps"
    model: str = "xswu/HPSv2"
    """The file HPS_v2.1_compressed.pt, or where it is."""
    tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Its tokenizer."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"model": (HPS_FILE,), "tokenizer": ()}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.hps import build

        return build(self)


class AestheticConfig(EvalConfig):
    """LAION's aesthetic score: the improved predictor's head on CLIP ViT-L/14."""

    type: Literal["aesthetic"] = "aesthetic"
    head: str = AESTHETIC_FILE
    """The head's file, sac+logos+ava1-l14-linearMSE.pth, or the folder it is in."""
    model: str = "openai/clip-vit-large-patch14"
    """The network below it."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"head": (AESTHETIC_FILE,), "model": CLIP_FILES}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.aesthetic import build

        return build(self)


class ImageRewardConfig(EvalConfig):
    """ImageReward: people's preferences, in BLIP's file, run by transformers."""

    type: Literal["image-reward"] = "image-reward"
    model: str = "zai-org/ImageReward"
    """The file ImageReward.pt, or where it is."""
    tokenizer: str = "google-bert/bert-base-uncased"
    """Its tokenizer."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"model": (REWARD_FILE,), "tokenizer": ()}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.image_reward import build

        return build(self)


class DiversityConfig(EvalConfig):
    """How different the pictures of one prompt are: distance between seeds, and the Vendi score."""

    type: Literal["diversity"] = "diversity"
    model: str = "facebook/dinov2-large"
    """The network in whose features they are compared."""

    def files(self) -> dict[str, tuple[str, ...]]:
        return {"model": CLIP_FILES}

    def build(self) -> Metrics:
        from distillkit_eval.metrics.diversity import build

        return build(self)


class AppearanceConfig(EvalConfig):
    """Detail and saturation beside the teacher's: blurred, grainy, pale or garish pictures."""

    type: Literal["appearance"] = "appearance"

    @property
    def needs_teacher(self) -> bool:
        return True

    def build(self) -> Metrics:
        from distillkit_eval.metrics.appearance import build

        return build(self)
