"""Stage mmdit: a transformer that learns the flow of the same latents, as Stable Diffusion 3 does.

VAE and text encoders are the SDXL-class teacher's, so that the two teachers share pictures, words
and latents. The budget counts samples (a busy machine takes longer and learns as much) or minutes.
Legend: N samples, Z = 4 latent channels, h = w = 16 (8 for crops), L = 20 tokens, D = 128 context
units, P = 128 pooled units, K patches of E units.
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

from distillkit.values import sent
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
from distillkit_shapes.train.graph import Step
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
    """What every step reads and none changes; conditions are encoded once, since texts are few."""

    z_NZhw: Tensor
    context_NLD: Tensor
    pooled_NP: Tensor
    weight_N: Tensor
    null_LD: Tensor
    """The context of the empty text, which is the family's null condition."""
    null_P: Tensor

    def to(self, device: torch.device) -> FlowSet:
        """All but the weights by which rows are drawn, which stay where their generator is."""
        moved = {name: value.to(device) for name, value in vars(self).items()}
        return FlowSet(**(moved | {"weight_N": self.weight_N}))


@dataclass
class MMDiTState:
    """All that a resumed run needs."""

    network: Any
    ema: Any
    optim: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0
    """Seconds of training."""

    @property
    def device(self) -> torch.device:
        return next(iter(self.network.parameters())).device

    def save(self, path: Path) -> None:
        """Writes the whole state at once."""
        owners = {"network": self.network, "ema": self.ema, "optim": self.optim}
        state = {name: owner.state_dict() for name, owner in owners.items()}
        save_atomic(state | {"step": self.step, "spent": self.spent}, path)

    def load(self, path: Path) -> None:
        """Restores the saved state."""
        state = torch.load(path, map_location=self.device)
        for name in ("network", "ema", "optim"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.spent = state["step"], state["spent"]


def new_state(device: str = "cpu") -> MMDiTState:
    """A seeded transformer, its EMA and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(400)
        network = architecture.mmdit()
    # As in DiT (Peebles & Xie 2023): every block starts as the identity, and the output as zero.
    for name, weight in network.named_parameters():
        if "norm1.linear" in name or "norm1_context.linear" in name or "out" in name.split(".")[0]:
            torch.nn.init.zeros_(weight)
    network.to(device)
    # A rate in a tensor, and moments' counts on the device: what a graph needs.
    optim = torch.optim.AdamW(
        network.parameters(),
        lr=torch.tensor(PEAK, device=device),
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
        capturable=device != "cpu",
    )
    return MMDiTState(network, copy.deepcopy(network).requires_grad_(False), optim)


@torch.no_grad()
def load_flow_set(source: Path, work: Path, device: torch.device) -> FlowSet:
    """Cached latents of the teacher in `source`, and their captions' conditions in float16."""
    ids_2NL, z_NZhw = cached_latents(source, work, device)
    encoders = Encoders(load_parts(source, TEXT))
    null = conditions(encoders, encoders.ids([""]))
    for name in ("text_encoder", "text_encoder_2"):
        encoders.parts[name].to(device)
    found = [conditions(encoders, ids.to(device)) for ids in ids_2NL.split(1000, dim=1)]
    context_NLD, pooled_NP = (torch.cat([each[i].half() for each in found]) for i in (0, 1))
    flows = FlowSet(z_NZhw, context_NLD, pooled_NP, row_weights(), null[0][0], null[1][0])
    return flows.to(device)


@torch.no_grad()
def conditions(encoders: Encoders, ids_2NL: Tensor) -> tuple[Tensor, Tensor]:
    """The context (N, L + 1, D) and pooled (N, P) that the stock pipeline makes of the ids.

    Without a T5 its tokens are zeros, of which there is one; the first encoder's pooled output is
    that of its last token, through no projection.
    """
    one = encoders.parts["text_encoder"](ids_2NL[0], output_hidden_states=True)
    two = encoders.parts["text_encoder_2"](ids_2NL[1], output_hidden_states=True)
    context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    return pad(context, (0, 0, 0, 1)), torch.cat([one.pooler_output, two.text_embeds], dim=-1)


def positions(network: Any, top: int, left: int, side: int) -> Tensor:
    """table_1KE: patches of a crop have the places that they have in the picture.

    `top`, `left`: its corner in latent cells, which are even, as its `side` is.
    """
    embed = network.pos_embed
    whole, cell = embed.pos_embed_max_size, embed.patch_size
    first = (whole - architecture.LATENT_SIDE // cell) // 2
    rows, columns = (slice(first + x // cell, first + (x + side) // cell) for x in (top, left))
    table_YXE: Tensor = embed.pos_embed.view(whole, whole, -1)
    return table_YXE[rows, columns].flatten(0, 1)[None]


@contextmanager
def placed(network: Any, table_1KE: Tensor) -> Iterator[None]:
    """Inside, the network's patches have these positions."""
    network.pos_embed.cropped_pos_embed = lambda *_: table_1KE
    try:
        yield
    finally:
        del network.pos_embed.cropped_pos_embed


def draw(state: MMDiTState, flows: FlowSet, batch: int, rng: Generator) -> dict[str, Tensor]:
    """What `flow_loss` reads: x = (1 - sigma) z + sigma eps, with logit(sigma) ~ N(0, 1).

    Draws are made on the CPU, so that they are the same on every device.
    """
    rows = torch.multinomial(flows.weight_N, batch, replacement=True, generator=rng)
    # Some batches are crops: the local views of a discriminator are such inputs.
    top, left, side = 0, 0, architecture.LATENT_SIDE
    if torch.rand(1, generator=rng).item() < CROPPED:
        side //= 2
        top, left = (2 * torch.randint(side // 2 + 1, (2,), generator=rng)).tolist()
    # Some samples have the empty text, for classifier-free guidance.
    empty_N = torch.rand(batch, generator=rng) < UNCONDITIONAL
    sigma_N = torch.sigmoid(torch.randn(batch, generator=rng))
    # Pure noise, where every roll-out starts, has no density there: one sample in ten is at it.
    sigma_N = torch.where(torch.rand(batch, generator=rng) < 0.1, 1.0, sigma_N)
    eps_NZhw = torch.randn(batch, 4, side, side, generator=rng)
    drawn = (rows, empty_N, sigma_N, eps_NZhw)
    rows, empty_N, sigma_N, eps_NZhw = (sent(x, state.device) for x in drawn)
    z_NZhw = flows.z_NZhw[rows, :, top : top + side, left : left + side].float()
    sigma_N111 = sigma_N[:, None, None, None]
    return {
        "x_NZhw": (1 - sigma_N111) * z_NZhw + sigma_N111 * eps_NZhw,
        "velocity_NZhw": eps_NZhw - z_NZhw,
        "t_N": 1000 * sigma_N,
        "context_NLD": torch.where(
            empty_N[:, None, None], flows.null_LD, flows.context_NLD[rows].float()
        ),
        "pooled_NP": torch.where(empty_N[:, None], flows.null_P, flows.pooled_NP[rows].float()),
        "table_1KE": positions(state.network, top, left, side),
    }


def flow_loss(network: Any, drawn: dict[str, Tensor]) -> Tensor:
    """E|v - (eps - z)|^2 (Esser et al. 2024, section 3.1; weights of 1)."""
    with placed(network, drawn["table_1KE"]):
        guess = network(
            drawn["x_NZhw"],
            encoder_hidden_states=drawn["context_NLD"],
            pooled_projections=drawn["pooled_NP"],
            timestep=drawn["t_N"],
        ).sample
    return (guess - drawn["velocity_NZhw"]).square().mean()


def new_step(state: MMDiTState) -> Step:
    """Loss, gradients and optimizer step of what was drawn."""

    def update(drawn: dict[str, Tensor]) -> Tensor:
        loss = flow_loss(state.network, drawn)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
        state.optim.step()
        return loss.detach()

    return Step(update, state.optim)


def train_step(
    state: MMDiTState, flows: FlowSet, step: Step, lr: float, batch: int = BATCH
) -> Tensor:
    """One optimizer step; its randomness depends on the step alone, so resumed runs repeat it."""
    for group in state.optim.param_groups:
        group["lr"].fill_(lr)
    loss = step(draw(state, flows, batch, generator(20_000_000 + state.step)))
    state.step += 1
    decay = min(0.9995, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        own = list(state.network.parameters())
        torch._foreach_lerp_(list(state.ema.parameters()), own, 1 - decay)
    return loss


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
    replace_folder(copy.deepcopy(state.ema).cpu().half(), out / "transformer")
    remove_local_paths(out)
    log(f"mmdit exported at step {state.step}")


@dataclass
class Budget:
    """How far training is, by samples or, where `minutes` are given, by time."""

    samples: int
    minutes: float | None = None

    def progress(self, state: MMDiTState, batch: int) -> float:
        """The share of the budget that is used."""
        if self.minutes is not None:
            return state.spent / (60 * self.minutes)
        return state.step * batch / self.samples


def train_mmdit(
    source: Path, out: Path, work: Path, budget: Budget, batch: int, device: str, resume: bool
) -> None:
    """Trains for the budget, resumed runs included; saves and exports as it goes."""
    state, path = new_state(device), work / "mmdit.pt"
    if device != "cpu":
        torch.set_float32_matmul_precision("high")
    if resume and path.exists():
        state.load(path)
    flows, step = load_flow_set(source, work, state.device), new_step(state)
    mean_loss, mark = torch.zeros((), device=device), time.monotonic()
    while (progress := budget.progress(state, batch)) < 1:
        lr = lr_at(progress, PEAK, warmup=0.01, hold=0.4)
        mean_loss += train_step(state, flows, step, lr, batch) / 100
        if state.step % 100 == 0:
            found = mean_loss.item()  # waits for the device, so that seconds are those of its work
            seconds, mark = time.monotonic() - mark, time.monotonic()
            state.spent += seconds
            per = 1000 * seconds / (100 * batch)
            log(f"mmdit step {state.step} {progress:.1%} loss {found:.4f} {per:.2f} s per 1000")
            mean_loss.zero_()
        if state.step % SAVE_EVERY == 0:
            state.save(path)
        if state.step % EXPORT_EVERY == 0:
            export(state, source, out)
    state.save(path)
    export(state, source, out)
