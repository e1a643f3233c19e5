"""Frozen networks of 16 bits are computed in them, under autocast too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.values import Window
from distillkit_diffusers.configs import UNetEncoderConfig, UNetStudentConfig
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit_diffusers.tiny import PROMPTS, noise

AUTOCAST = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def family(tiny_sdxl: Path) -> Any:
    return load_teacher(tiny_sdxl, dtype="bfloat16")


def test_a_teacher_and_a_backbone(family: Any) -> None:
    """Autocast on a GPU would compute norms in float32: other numbers, and slower."""
    cond, t_B = family.encode(PROMPTS), torch.tensor([999, 249])
    whole = Window(torch.zeros(2), torch.zeros(2), 8, 8, 8, 8)
    backbone = UNetEncoderConfig().build(family)

    def outputs() -> list[torch.Tensor]:
        maps = backbone.features(noise(2), t_B, cond, whole)
        return [family.denoiser(noise(2), t_B, cond), *maps]

    expected, casts = outputs(), []
    networks = (family.pipe.unet.conv_in, backbone.encoder.mid_block, family.pipe.text_encoder)
    for module in networks:
        module.register_forward_hook(lambda *_: casts.append(torch.is_autocast_enabled("cpu")))
    with AUTOCAST:
        found = outputs()
        family.encode(PROMPTS)
        assert torch.is_autocast_enabled("cpu")
    assert len(casts) >= 4
    assert not any(casts)
    assert [f.dtype for f in found] == [e.dtype for e in expected]
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_lora_is_computed_in_16_bits_and_learns_in_32(
    tiny_sdxl: Path, autocast: bool, bits: Any
) -> None:
    family: Any = load_teacher(tiny_sdxl, dtype="bfloat16")
    if bits is not None:
        family.quantize(bits)
    student: Any = UNetStudentConfig(train="lora", rank=2).build(family)
    seen: set[torch.dtype] = set()
    for layer in student.module._layers.values():
        layer.lora_A["default"].register_forward_hook(lambda _m, _x, y: seen.add(y.dtype))
    cond, t_B = family.encode(PROMPTS), torch.tensor([999, 249])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        student(noise(2), t_B, cond).square().mean().backward()
    assert seen == {torch.bfloat16}
    grads = [p.grad for p in student.module.parameters() if p.grad is not None]
    assert grads
    assert all(g.dtype == torch.float32 for g in grads)
    assert any(float(g.abs().max()) > 0 for g in grads)
