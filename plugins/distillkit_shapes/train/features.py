"""Stage features: the classifier learns the attributes of true pictures, some blurred or noised.

Legend: N pictures, C = 3, H = W = 64, A = 9 attributes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from distillkit_shapes.features import Classifier
from distillkit_shapes.train.data import (
    TimeBudget,
    generator,
    log,
    lr_at,
    render_scenes,
    to_float,
)


def train_features(path: Path, minutes: float, batch: int = 64, pictures: int = 24000) -> None:
    """Trains for `minutes` on rendered pictures and saves safetensors to `path`."""
    from safetensors.torch import save_file

    rng = generator(401)
    codes_NA, x_NCHW = render_scenes(pictures, seed=400)
    with torch.random.fork_rng():
        torch.manual_seed(402)
        model = Classifier()
    optim = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    budget, step = TimeBudget(minutes), 0
    while budget.progress < 1:
        for group in optim.param_groups:
            group["lr"] = lr_at(budget.progress, 3e-3, hold=0.3)
        rows = torch.randint(pictures, (batch,), generator=rng)
        x = augment(to_float(x_NCHW[rows]), blur=step % 4 == 0, rng=rng)
        truth_AN = codes_NA[rows].unbind(1)
        # One cross-entropy an attribute, averaged.
        loss = torch.stack(
            [cross_entropy(y, truth) for y, truth in zip(model(x), truth_AN, strict=True)]
        ).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        if step % 100 == 0:
            log(f"features {step} loss {loss.item():.4f}")
        step += 1
    model.requires_grad_(False).eval()
    report_accuracy(model)
    save_file({name: w.contiguous() for name, w in model.state_dict().items()}, path)


def augment(x_NCHW: Tensor, blur: bool, rng: Generator) -> Tensor:
    """Pictures with weak noise, and blurred where asked: features must see both kinds of harm."""
    if blur:
        x_NCHW = avg_pool2d(x_NCHW, 3, stride=1, padding=1, count_include_pad=False)
    strength = 0.03 * torch.rand(1, generator=rng)
    return x_NCHW + strength * torch.randn(x_NCHW.shape, generator=rng)


def report_accuracy(model: Classifier) -> None:
    """Logs the accuracy of each attribute on fresh pictures."""
    codes_NA, fresh = render_scenes(2000, seed=403)
    right = [
        y.argmax(1) == truth
        for y, truth in zip(model(to_float(fresh)), codes_NA.unbind(1), strict=True)
    ]
    shares = [round(r.float().mean().item(), 4) for r in right]
    log(f"features on fresh pictures, by attribute: {shares}")
