"""The feature classifier: a small convnet that predicts the attributes of a true picture.

Frechet and kernel distances are taken in its 64 features. No run trains against it.
Legend: N pictures, C = 3, H = W = 64, F = 64 features, A = 9 attributes.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from distillkit_shapes.scenes import SIZES

WEIGHTS = Path(__file__).parent / "features.safetensors"
"""The shipped weights."""
FEATURES = 64


class Classifier(nn.Module):
    """Four strided convolutions to a 4x4 map, 64 features, one linear classifier an attribute.

    Features are normalised to mean 0 and standard deviation 1 over true pictures.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 32, 48, 48)
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after)]
            blocks += [nn.SiLU()]
        self.trunk = nn.Sequential(
            *blocks,
            nn.Flatten(),
            nn.Linear(48 * 16, FEATURES),
            nn.BatchNorm1d(FEATURES, affine=False),
        )
        self.readers = nn.ModuleList(nn.Linear(FEATURES, size) for size in SIZES)

    def features(self, x_NCHW: Tensor) -> Tensor:
        """features_NF of pictures in [0, 1]."""
        features: Tensor = self.trunk(x_NCHW * 2 - 1)
        return features

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """Logits of each attribute."""
        hidden = torch.nn.functional.silu(self.features(x_NCHW))
        return [reader(hidden) for reader in self.readers]


@cache
def shipped_classifier() -> Classifier:
    """The classifier with the shipped weights, frozen."""
    from safetensors.torch import load_file

    model = Classifier()
    model.load_state_dict(load_file(WEIGHTS))
    return model.requires_grad_(False).eval()


@torch.no_grad()
def features(x_NCHW: Tensor, batch: int = 500) -> Tensor:
    """features_NF float32 of pictures in [0, 1] by the shipped classifier, `batch` at a time."""
    model = shipped_classifier()
    return torch.cat([model.features(x.float().clamp(0, 1)) for x in x_NCHW.split(batch)])
