"""Gradients of many small tensors are exchanged in few calls, each tensor as if alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillkit.training.models.distributed import average_gradients


@pytest.mark.parametrize(("bucket", "calls"), [(10**6, 3), (39, 4), (1, 5)])
def test_gradients_are_averaged_a_bucket_at_a_time(
    monkeypatch: pytest.MonkeyPatch, bucket: int, calls: int
) -> None:
    monkeypatch.setattr("distillkit.training.models.distributed.BUCKET", bucket)
    shapes = {"a": (2, 3), "b": (4,), "half": (2,), "after": (3,), "more": ()}
    parameters = [
        nn.Parameter(torch.zeros(s, dtype=torch.float16 if n == "half" else torch.float32))
        for n, s in shapes.items()
    ]
    for n, p in enumerate(parameters):
        p.grad = torch.full_like(p, n + 1.0)
    silent = nn.Parameter(torch.zeros(7))
    asked: list[Tensor] = []

    def reduce(flat: Tensor, how: str) -> Tensor:
        assert how == "mean"
        asked.append(flat)
        return flat * 10

    average_gradients([*parameters, silent], reduce)
    assert len(asked) == calls
    assert silent.grad is None
    for n, p in enumerate(parameters):
        assert torch.equal(p.grad, torch.full_like(p, 10 * (n + 1.0)))
