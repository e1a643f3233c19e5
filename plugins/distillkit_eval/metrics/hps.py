"""HPSv2.1 (Wu et al. 2023): people's preferences, by a CLIP ViT-H-14 in open-clip's layout."""

from __future__ import annotations

from distillkit.values import MetricInfo
from distillkit_eval.base import Scores
from distillkit_eval.configs import HPS_FILE, HpsConfig
from distillkit_eval.loading import file_of, pick_device
from distillkit_eval.metrics.clip import Clip
from distillkit_eval.metrics.open_clip import load_open_clip


def build(config: HpsConfig) -> Scores:
    """`hps`: the cosine; tables of the paper show it times 100."""
    clip = Clip(
        lambda: load_open_clip(file_of(config.model, HPS_FILE, "model")),
        config.tokenizer,
        pick_device(config.device),
        padded=True,
    )
    info = MetricInfo(
        "HPSv2.1",
        "Human preference score of the picture for its prompt, a cosine; the paper's times 100.",
        better="higher",
    )
    return Scores("hps", info, config.prompts, config.batch, clip.cosine)
