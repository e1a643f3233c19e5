"""DMD2's fake score as a LoRA on the base that teacher, student and critics share."""

from __future__ import annotations

from typing import Any

import torch

from distillkit import testing
from distillkit_diffusers.flow.configs import FlowTeacherConfig
from distillkit_dmd2.loss import DistributionMatchingConfig
from tests.distillkit_diffusers.flow.tiny import PROMPTS, Tiny


def test_the_loss(teacher: Any) -> None:
    testing.check(DistributionMatchingConfig(guidance=2.0, rank=2), teacher=teacher)


def test_it_begins_as_the_teacher_and_trains_beside_it(
    tiny: Tiny, teacher_config: FlowTeacherConfig
) -> None:
    """One copy of the base; what trains is small and in float32."""
    teacher: Any = teacher_config.build()
    student: Any = tiny.student.model_validate({"train": "lora", "rank": 2}).build(teacher)
    loss = DistributionMatchingConfig(rank=2).build(teacher, student)
    x_t, t_B, cond = tiny.noise(2), torch.tensor([999, 400]), teacher.encode(PROMPTS)
    with torch.no_grad():
        before = teacher.denoiser(x_t, t_B, cond)
        torch.testing.assert_close(loss.fake_score(x_t, t_B, cond), before)
    [module] = loss.modules()
    base = {p.data_ptr() for p in teacher.pipe.transformer.parameters()}
    frozen = {n: p for n, p in module._twin.named_parameters() if "lora_" not in n}
    assert {p.data_ptr() for p in frozen.values()} == base
    assert all(p.dtype == torch.float32 and p.requires_grad for p in module.parameters())
    loss.fake_score(x_t, t_B, cond).square().mean().backward()
    with torch.no_grad():
        for p in module.parameters():
            assert p.grad is not None
            p.sub_(10 * p.grad)
        assert float((loss.fake_score(x_t, t_B, cond) - before).abs().max()) > 1e-4
        for untouched in (teacher.denoiser, student):
            torch.testing.assert_close(untouched(x_t, t_B, cond), before)
