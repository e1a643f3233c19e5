"""AdamW with moments of 32 and of 8 bits: their bytes, their resume, their absence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from distillkit.errors import UserError
from distillkit.recipe.schema import AdamWConfig, OptimConfig, RunConfig, StudentAdamWConfig
from distillkit.training.models.optimizers import make_optimizer, moments_bytes
from tests.distillkit.world import assert_same, everything, trainer, world_recipe


def test_moments_take_what_is_said_of_them() -> None:
    """32 bits: 8 bytes a value, and 4 for the count of steps."""
    parameters = [nn.Parameter(torch.randn(n)) for n in (7, 5000)]
    assert moments_bytes(parameters, AdamWConfig(lr=1)) == 8 * 5007 + 2 * 4
    assert _counted(parameters, AdamWConfig(lr=1)) == 8 * 5007 + 2 * 4


def test_8_bit_moments_take_what_is_said_of_them() -> None:
    """bitsandbytes: tensors of 4,096 values and more take 2 bytes a value and 8 a block of 256."""
    pytest.importorskip("bitsandbytes")
    optim = AdamWConfig(lr=1e-3, bits=8)
    parameters = [nn.Parameter(torch.randn(n)) for n in (7, 4095, 4096, 5000)]
    expected = 8 * (7 + 4095) + 2 * (4096 + 5000) + 8 * (16 + 20) + 2 * 1024
    assert moments_bytes(parameters, optim) == expected
    assert _counted(parameters, optim) == expected


def _counted(parameters: list[nn.Parameter], optim: AdamWConfig) -> int:
    """Bytes of a real optimizer's state after a step; what two tensors share counts once."""
    optimizer = make_optimizer((parameters, optim))
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimizer.step()
    held = [v for state in optimizer.state.values() for v in state.values()]
    storages = {t.untyped_storage()._cdata: t.nbytes for t in held if isinstance(t, torch.Tensor)}
    return sum(storages.values())


def test_8_bit_runs_resume_bit_for_bit(tmp_path: Path) -> None:
    """Heads of more than 4,096 values a tensor, so that there is something in 8 bits."""
    pytest.importorskip("bitsandbytes")
    eight = AdamWConfig(lr=1e-2, bits=8)
    pool = {"type": "dynamic", "timesteps": [10], "heads_per_slot": 2, "width": 64, "depth": 1}
    recipe = world_recipe(
        pool=pool | {"zero_init": False},
        optim=OptimConfig(student=StudentAdamWConfig(lr=1e-3), critic=eight),
        refinement={"type": "fixed", "steps": 1, "iterations": 8},
        run=RunConfig(batch=4, checkpoint_every=4, keep_checkpoints=9, offload_heads=True),
    )
    whole = trainer(recipe, tmp_path)
    whole.train()
    quantised = [k for k, v in everything(whole).items() if v.dtype == torch.uint8]
    assert any(k.startswith("critic-optimizer.") for k in quantised)
    for file in (tmp_path / "checkpoints" / "00000008").iterdir():
        file.unlink()
    again = trainer(recipe, tmp_path)
    again.train(resume=True)
    assert_same(everything(whole), everything(again))


def test_8_bits_without_bitsandbytes_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'distillkit\[8bit\]', or set bits to 32"):
        make_optimizer(([nn.Parameter(torch.zeros(3))], AdamWConfig(lr=1, bits=8)))


def test_players_that_share_an_optimizer_have_equal_bits() -> None:
    one, other = StudentAdamWConfig(lr=1, bits=8), StudentAdamWConfig(lr=1)
    with pytest.raises(ValueError, match="should be 32, as in `student`: they share an optimizer"):
        OptimConfig(student=other, warmup=one)
    with pytest.raises(ValueError, match="should be 8, as in `critic`: they share an optimizer"):
        OptimConfig(student=other, critic=one, aux=other)
