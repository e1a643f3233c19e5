"""FID and its relatives: Inception's 2048 features, by torch-fidelity.

The network is the one of Heusel et al. 2017, ported bit for bit from TensorFlow with its resizing;
numbers of other Inceptions are not FID.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.errors import UserError
from distillkit_eval.base import Extractor, run_batches
from distillkit_eval.configs import INCEPTION_FILE, FidConfig
from distillkit_eval.loading import pick_device, reading
from distillkit_eval.metrics.distances import Distances, frechet, kernel, precision
from distillkit_eval.pictures import middle, prepared

INCEPTION = "the 2048 features of FID's Inception"


def build(config: FidConfig, name: str, patch: int | None) -> Distances:
    """`fid` of whole pictures, or `patch_fid` of the middle of each."""
    extractor = Extractor(_lazily(config, patch))
    if patch is not None:
        title, where = "patch FID", f"{INCEPTION}, of the middle {patch} pixels"
        return Distances(config, [frechet(name, title, where)], extractor)
    statistics = [
        frechet(name, "FID", INCEPTION),
        kernel("kid", "KID", INCEPTION, config.seed),
        precision("", INCEPTION),
    ]
    return Distances(config, statistics, extractor)


def _lazily(config: FidConfig, patch: int | None) -> Any:
    """Loads the network when it is first asked for features."""
    networks: list[Any] = []

    def extract(pictures: Pictures) -> Tensor:
        device = pick_device(config.device)
        if not networks:
            networks.append(load_inception(config.weights).to(device))

        def features(x_B3HW: Tensor) -> Tensor:
            # The network resizes by itself, as TensorFlow did.
            return networks[0](x_B3HW)[0]

        # Whole pictures come in their own sizes, and the network resizes each.
        prepare = middle(patch) if patch is not None else _as_it_is
        return run_batches(prepared(pictures, config.batch, prepare), features, device)

    return extract


def _as_it_is(image: Any) -> Any:
    return image


def load_inception(weights: str | None) -> Any:
    """The network; raises `UserError` where the package or its weights are missing."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"FID needs torch-fidelity, which can't be imported ({error}); install it with "
            "torchvision: pip install 'distillkit[eval]'"
        ) from error
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    path = weights or (str(cached) if cached.is_file() else None)
    with reading(path or INCEPTION_FILE, "weights"):
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=path
        )
