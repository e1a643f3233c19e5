"""Stage mmdit: a transformer that learns the flow of the same latents, as Stable Diffusion 3 does.

VAE and text encoders are the SDXL-class teacher's, so that the two teachers share pictures, words
and latents. The budget counts samples, not minutes: a busy machine takes longer and learns as much.
Legend: N samples, Z = 4 latent channels, h = w = 16 (8 for crops), L = 20 tokens.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from distillkit_shapes import architecture
from distillkit_shapes.train.data import (
    generator,
    load_parts,
    log,
    lr_at,
    replace_folder,
    save_atomic,
)
from distillkit_shapes.train.evaluate import remove_local_paths
from distillkit_shapes.train.latents import TEXT, cached_latents, row_weights
from distillkit_shapes.train.text import Encoders

BATCH, PEAK = 32, 1e-3
"""Samples a step, and the largest learning rate."""
CROPPED, UNCONDITIONAL = 0.12, 0.10
"""Share of batches that are crops, and of samples without a prompt."""
SAVE_EVERY, EXPORT_EVERY = 500, 4000
"""Steps between checkpoints, and between exports."""


@dataclass
class FlowSet:
    """What every step reads and none changes."""

    encoders: Encoders
    ids_2NL: Tensor
    z_NZhw: Tensor
    weight_N: Tensor
    empty_2L: Tensor
    """Both tokenizers' ids of the empty text, which is the family's null condition."""


@dataclass
class MMDiTState:
    """All that a resumed run needs."""

    network: Any
    ema: Any
    optim: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path) -> None:
        """Writes the whole state at once."""
        owners = {"network": self.network, "ema": self.ema, "optim": self.optim}
        state = {name: owner.state_dict() for name, owner in owners.items()}
        save_atomic(state | {"step": self.step}, path)

    def load(self, path: Path) -> None:
        """Restores the saved state."""
        state = torch.load(path)
        for name in ("network", "ema", "optim"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def new_state() -> MMDiTState:
    """A seeded transformer, its EMA and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(400)
        network = architecture.mmdit()
    # As in DiT (Peebles & Xie 2023): every block starts as the identity, and the output as zero.
    for name, weight in network.named_parameters():
        if "norm1.linear" in name or "norm1_context.linear" in name or "out" in name.split(".")[0]:
            torch.nn.init.zeros_(weight)
    optim = torch.optim.AdamW(
        network.parameters(), lr=PEAK, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    return MMDiTState(network, copy.deepcopy(network).requires_grad_(False), optim)


def load_flow_set(source: Path, work: Path) -> FlowSet:
    """Cached latents and captions of the teacher in `source`."""
    ids_2NL, z_NZhw = cached_latents(source, work)
    encoders = Encoders(load_parts(source, TEXT))
    return FlowSet(encoders, ids_2NL, z_NZhw, row_weights(), encoders.ids([""])[:, 0])


def conditions(encoders: Encoders, ids_2NL: Tensor) -> tuple[Tensor, Tensor]:
    """The context (N, L + 1, 128) and pooled (N, 128) that the stock pipeline makes of the ids.

    Without a T5 its tokens are zeros, of which there is one; the first encoder's pooled output is
    that of its last token, through no projection.
    """
    one = encoders.parts["text_encoder"](ids_2NL[0], output_hidden_states=True)
    two = encoders.parts["text_encoder_2"](ids_2NL[1], output_hidden_states=True)
    context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    return pad(context, (0, 0, 0, 1)), torch.cat([one.pooler_output, two.text_embeds], dim=-1)


@contextmanager
def positions_from(network: Any, top: int, left: int) -> Iterator[None]:
    """Inside, a crop's patches have the places that they have in the picture.

    `top`, `left`: its corner in latent cells, which are even.
    """
    embed = network.pos_embed
    side, cell = embed.pos_embed_max_size, embed.patch_size
    first = (side - architecture.LATENT_SIDE // cell) // 2

    def shifted(height: int, width: int) -> Tensor:
        rows = slice(first + top // cell, first + (top + height) // cell)
        columns = slice(first + left // cell, first + (left + width) // cell)
        table_YXD: Tensor = embed.pos_embed.view(side, side, -1)
        return table_YXD[rows, columns].flatten(0, 1)[None]

    embed.cropped_pos_embed = shifted
    try:
        yield
    finally:
        del embed.cropped_pos_embed


def flow_loss(network: Any, flows: FlowSet, rows: Tensor, rng: Generator) -> Tensor:
    """E|v - (eps - z)|^2 at x = (1 - sigma) z + sigma eps, logit(sigma) ~ N(0, 1).

    (Esser et al. 2024, section 3.1; weights of 1.)
    """
    z_NZhw, ids_2NL = flows.z_NZhw[rows].float(), flows.ids_2NL[:, rows]
    count = len(rows)
    # Some batches are crops: the local views of a discriminator are such inputs.
    top = left = 0
    if torch.rand(1, generator=rng).item() < CROPPED:
        side = architecture.LATENT_SIDE // 2
        top, left = (2 * torch.randint(side // 2 + 1, (2,), generator=rng)).tolist()
        z_NZhw = z_NZhw[:, :, top : top + side, left : left + side]
    # Some samples have the empty text, for classifier-free guidance.
    empty_N = torch.rand(count, generator=rng) < UNCONDITIONAL
    ids_2NL = torch.where(empty_N[:, None], flows.empty_2L[:, None], ids_2NL)
    with torch.no_grad():
        context_NLD, pooled_NP = conditions(flows.encoders, ids_2NL)
    sigma_N = torch.sigmoid(torch.randn(count, generator=rng))
    # Pure noise, where every roll-out starts, has no density there: one sample in ten is at it.
    sigma_N = torch.where(torch.rand(count, generator=rng) < 0.1, 1.0, sigma_N)
    eps_NZhw = torch.randn(z_NZhw.shape, generator=rng)
    sigma_N111 = sigma_N[:, None, None, None]
    with positions_from(network, top, left):
        guess = network(
            (1 - sigma_N111) * z_NZhw + sigma_N111 * eps_NZhw,
            encoder_hidden_states=context_NLD,
            pooled_projections=pooled_NP,
            timestep=1000 * sigma_N,
        ).sample
    return (guess - (eps_NZhw - z_NZhw)).square().mean()


def train_step(state: MMDiTState, flows: FlowSet, lr: float, batch: int = BATCH) -> float:
    """One optimizer step; its randomness depends on the step alone, so resumed runs repeat it."""
    rng = generator(20_000_000 + state.step)
    for group in state.optim.param_groups:
        group["lr"] = lr
    rows = torch.multinomial(flows.weight_N, batch, replacement=True, generator=rng)
    loss = flow_loss(state.network, flows, rows, rng)
    state.optim.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optim.step()
    state.step += 1
    decay = min(0.9995, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        own = list(state.network.parameters())
        torch._foreach_lerp_(list(state.ema.parameters()), own, 1 - decay)
    return loss.item()


def export(state: MMDiTState, source: Path, out: Path) -> None:
    """A StableDiffusion3Pipeline in `out`: the EMA in float16, and the parts of `source`."""
    parts = load_parts(source, ("vae", *TEXT))
    if not (out / "model_index.json").exists():
        pipe = architecture.flow_pipeline(parts, architecture.mmdit())
        for name in ("vae", "text_encoder", "text_encoder_2"):
            getattr(pipe, name).half().save_pretrained(out / name)
        for name in ("tokenizer", "tokenizer_2", "scheduler"):
            getattr(pipe, name).save_pretrained(out / name)
        pipe.save_config(out)
    replace_folder(copy.deepcopy(state.ema).half(), out / "transformer")
    remove_local_paths(out)
    log(f"mmdit exported at step {state.step}")


def train_mmdit(source: Path, out: Path, work: Path, samples: int, resume: bool) -> None:
    """Trains on `samples` in all, resumed runs included; saves and exports as it goes."""
    state, path, steps = new_state(), work / "mmdit.pt", samples // BATCH
    if resume and path.exists():
        state.load(path)
    flows = load_flow_set(source, work)
    mean_loss, mark = 0.0, time.monotonic()
    while state.step < steps:
        lr = lr_at(state.step / steps, PEAK, warmup=0.01, hold=0.4)
        mean_loss += train_step(state, flows, lr) / 100
        if state.step % 100 == 0:
            seconds, mark = time.monotonic() - mark, time.monotonic()
            per = 1000 * seconds / (100 * BATCH)
            log(f"mmdit step {state.step} of {steps} loss {mean_loss:.4f} {per:.1f} s per 1000")
            mean_loss = 0.0
        if state.step % SAVE_EVERY == 0 or state.step == steps:
            state.save(path)
        if state.step % EXPORT_EVERY == 0 or state.step == steps:
            export(state, source, out)
