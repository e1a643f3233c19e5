"""The low-rank part of a difference, against singular values chosen by hand."""

from __future__ import annotations

import pytest
import torch

from distillkit_diffusers.export.lora_extraction import extract_lora


def test_the_share_is_that_of_the_singular_values() -> None:
    """Singular values 3, 2, 1 and a bias of norm 1: rank 2 keeps (9 + 4) / (9 + 4 + 1 + 1)."""
    spec, _ = torch.linalg.qr(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    change = spec @ torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    base = {"conv_in.weight": torch.ones(4, 3, 1, 1), "conv_in.bias": torch.zeros(4)}
    weights = {
        "conv_in.weight": base["conv_in.weight"] + change[:, :, None, None],
        "conv_in.bias": torch.tensor([0.6, 0.8, 0.0, 0.0]),
    }
    found = extract_lora(weights, base, 2, torch.float32)
    assert found.share == pytest.approx(13 / 15, abs=1e-5)
    assert found.dropped == 1
    down = found.tensors["lora_unet_conv_in.lora_down.weight"]
    up = found.tensors["lora_unet_conv_in.lora_up.weight"]
    assert (down.shape, up.shape) == ((2, 3, 1, 1), (4, 2, 1, 1))
    assert found.tensors["lora_unet_conv_in.alpha"] == 2
    best = spec @ torch.diag(torch.tensor([3.0, 2.0, 0.0]))
    torch.testing.assert_close(up.flatten(1) @ down.flatten(1), best, rtol=1e-4, atol=1e-5)
