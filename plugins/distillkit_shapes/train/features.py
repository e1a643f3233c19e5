"""Stage features: the classifier learns attributes of true pictures, slightly blurred or noised.

Legend: N pictures, C = 3, H = W = 64, A = 9 attributes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d, cross_entropy

from distillkit_shapes.features import Classifier

from .data import Clock, drawn, generator, rate_at, say, unit


def train_features(path: Path, minutes: float, batch: int = 64, pictures: int = 24000) -> None:
    """Trains for `minutes` on drawn pictures and saves safetensors to `path`."""
    from safetensors.torch import save_file

    source = generator(401)
    codes_NA, x_NCHW = drawn(pictures, seed=400)
    with torch.random.fork_rng():
        torch.manual_seed(402)
        model = Classifier()
    optim = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    clock, step = Clock(minutes), 0
    while clock.progress < 1:
        for group in optim.param_groups:
            group["lr"] = rate_at(clock.progress, 3e-3, hold=0.3)
        rows = torch.randint(pictures, (batch,), generator=source)
        x, truth_AN = unit(x_NCHW[rows]), codes_NA[rows].unbind(1)
        if step % 4 == 0:
            x = avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        x = x + 0.03 * torch.rand(1, generator=source) * torch.randn(x.shape, generator=source)
        loss = torch.stack(
            [cross_entropy(y, truth) for y, truth in zip(model(x), truth_AN, strict=True)]
        ).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        if step % 100 == 0:
            say(f"features {step} loss {loss.item():.4f}")
        step += 1
    model.requires_grad_(False).eval()
    codes_NA, fresh = drawn(2000, seed=403)
    right = [
        y.argmax(1) == truth
        for y, truth in zip(model(unit(fresh)), codes_NA.unbind(1), strict=True)
    ]
    shares = [round(r.float().mean().item(), 4) for r in right]
    say(f"features on fresh pictures, by attribute: {shares}")
    save_file({name: w.contiguous() for name, w in model.state_dict().items()}, path)
