"""Stage unet: epsilon prediction on cached latents, EMA, a schedule that fits the time budget.

Legend: N samples, Z = 4 latent channels, h = w = 16 (8 for crops), L = 20 tokens, D = 128, P = 64.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from distillkit_shapes import build
from distillkit_shapes.scenes import captions, draw_scenes

from .data import (
    Clock,
    drawn,
    generator,
    load_parts,
    rate_at,
    replace_folder,
    save_whole,
    say,
    unit,
)
from .text import Encoders

SCENES = 80_000
SHARES = (0.58, 0.15, 0.13, 0.14)
"""How often training meets each of scenes.KINDS: several objects more often than the world has."""
MIX = (0.40, 0.28, 0.17, 0.15)
"""How often an iteration meets each of them: those more often that are learnt last."""
GRID = (999, 874, 749, 624, 499, 374, 249, 124)
"""The eight timesteps at which the teacher is sampled; half of training meets them."""
HEAVIEST = 10.0
"""Cap of the loss weight 1 / abar_t, which turns epsilon error into velocity error."""
CLEAREST = 6.0
"""Signal-to-noise ratio above which weights fall (min-SNR, Hang et al. 2023): t = 124 has 6.4."""
CROPPED, UNCONDITIONAL = 0.12, 0.10
"""Share of batches that are 8x8 crops, and of samples without condition."""


TEXT = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


@torch.no_grad()
def cached_latents(out: Path, work: Path) -> tuple[Tensor, Tensor]:
    """ids_2NL and scaled latents z_NZhw float16 of SCENES drawn scenes, made once and kept."""
    path = work / "latents.pt"
    if not path.exists():
        parts = load_parts(out, ("vae", *TEXT))
        ids, latents, encoders = [], [], Encoders(parts)
        scale = parts["vae"].config.scaling_factor
        for part in range(SCENES // 2000):
            codes_NA, x_NCHW = drawn(2000, seed=3000 + part, shares=SHARES)
            ids.append(encoders.ids(captions(codes_NA)))
            for x in x_NCHW.split(200):
                posterior = parts["vae"].encode(unit(x) * 2 - 1).latent_dist
                latents.append((posterior.mean * scale).half())
        save_whole((torch.cat(ids, dim=1), torch.cat(latents)), path)
    ids_2NL, z_NZhw = torch.load(path)
    say(f"latents: {tuple(z_NZhw.shape)} std {z_NZhw[:5000].float().std():.3f}")
    return ids_2NL, z_NZhw


def row_weights() -> Tensor:
    """weight_N of the cached scenes, by which their kinds are met as MIX says."""
    parts = [
        draw_scenes(2000, generator(3000 + part), SHARES)[:, 0] for part in range(SCENES // 2000)
    ]
    kind_N = torch.cat(parts)
    return (torch.tensor(MIX) / kind_N.bincount(minlength=len(MIX)))[kind_N]


@dataclass
class State:
    """All that a resumed run needs."""

    unet: Any
    ema: Any
    optim: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0

    def save(self, path: Path) -> None:
        """Writes the whole state at once."""
        owners = {"unet": self.unet, "ema": self.ema, "optim": self.optim}
        state = {name: owner.state_dict() for name, owner in owners.items()}
        save_whole(state | {"step": self.step, "spent": self.spent}, path)

    def load(self, path: Path) -> None:
        """Goes back to the saved state."""
        state = torch.load(path)
        for name in ("unet", "ema", "optim"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.spent = state["step"], state["spent"]


def new_state() -> State:
    """A seeded UNet, its average and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(300)
        unet = build.unet()
    optim = torch.optim.AdamW(
        unet.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    return State(unet, copy.deepcopy(unet).requires_grad_(False), optim)


@dataclass
class Tools:
    """What every iteration needs and none changes."""

    encoders: Encoders
    ids_2NL: Tensor
    z_NZhw: Tensor
    weight_N: Tensor
    abar_T: Tensor
    rank: int
    ranks: int


def draw_timesteps(count: int, source: Generator) -> Tensor:
    """t_N int64: half of GRID, 35 % uniform, the rest extra low (< 300) and high (> 700)."""
    kind_N = torch.rand(count, generator=source)
    t_N = torch.randint(1000, (count,), generator=source)
    grid_N = torch.tensor(GRID)[torch.randint(8, (count,), generator=source)]
    low_N, high_N = t_N * 3 // 10, 700 + t_N * 3 // 10
    t_N = torch.where(kind_N < 0.15, torch.where(kind_N < 0.08, low_N, high_N), t_N)
    return torch.where(kind_N >= 0.5, grid_N, t_N)


def crop(z_NZhw: Tensor, source: Generator) -> tuple[Tensor, list[int]]:
    """One random 8x8 crop of the latents for the batch, and its SDXL time_ids in pixels."""
    side = build.LATENT_SIDE // 2
    top, left = torch.randint(side + 1, (2,), generator=source).tolist()
    z_NZhw = z_NZhw[:, :, top : top + side, left : left + side]
    return z_NZhw, [64, 64, 4 * top, 4 * left, 32, 32]


def loss_of(unet: Any, tools: Tools, ids_2NL: Tensor, z_NZhw: Tensor, source: Generator) -> Tensor:
    """Epsilon error of one batch, weighted by min(1 / abar, HEAVIEST) min(1, CLEAREST / SNR)."""
    count = z_NZhw.shape[0]
    numbers = [64, 64, 0, 0, 64, 64]
    if torch.rand(1, generator=source).item() < CROPPED:
        z_NZhw, numbers = crop(z_NZhw, source)
    with torch.no_grad():
        context_NLD, pooled_NP = tools.encoders(ids_2NL)
    keep_N = torch.rand(count, generator=source) >= UNCONDITIONAL
    t_N = draw_timesteps(count, source)
    abar_N = tools.abar_T[t_N][:, None, None, None]
    eps_NZhw = torch.randn(z_NZhw.shape, generator=source)
    noised = abar_N.sqrt() * z_NZhw + (1 - abar_N).sqrt() * eps_NZhw
    added = {
        "text_embeds": pooled_NP * keep_N[:, None],
        "time_ids": torch.tensor(numbers).float().expand(count, 6),
    }
    context = context_NLD * keep_N[:, None, None]
    guess = unet(noised, t_N, context, added_cond_kwargs=added).sample
    error_N = (guess - eps_NZhw).square().mean(dim=(1, 2, 3))
    abar_N = abar_N.flatten()
    weight_N = (1 / abar_N).clamp(max=HEAVIEST)
    weight_N = weight_N * (CLEAREST * (1 - abar_N) / abar_N).clamp(max=1)
    return (error_N * weight_N).mean()


def update_average(state: State, most: float = 0.9995) -> None:
    """EMA of the weights; its memory grows with the step up to `most`."""
    keep = min(most, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.unet.parameters()), 1 - keep)


def export(state: State, out: Path) -> None:
    """The averaged UNet in float16 as out/unet, swapped in whole."""
    replace_folder(copy.deepcopy(state.ema).half(), out / "unet")
    say(f"unet exported at step {state.step}")


def write_index(out: Path) -> None:
    """The pipeline's own files: model_index.json and the scheduler's config."""
    parts = load_parts(out, ("vae", *TEXT)) | {"unet": build.unet(), "scheduler": build.scheduler()}
    pipe = build.pipeline(parts)
    pipe.scheduler.save_pretrained(out / "scheduler")
    pipe.save_config(out)


def share_gradients(unet: Any, ranks: int) -> None:
    """Averages gradients over the processes, as one flat vector."""
    if ranks == 1:
        return
    grads = [weight.grad for weight in unet.parameters()]
    flat = torch.cat([grad.flatten() for grad in grads])
    torch.distributed.all_reduce(flat)
    for grad, mean in zip(grads, (flat / ranks).split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def agreed(clock: Clock, ranks: int) -> float:
    """Seconds spent, the same on every process: that of the slowest."""
    spent = torch.tensor(clock.spent)
    if ranks > 1:
        torch.distributed.all_reduce(spent, torch.distributed.ReduceOp.MAX)
    return spent.item()


def train_step(state: State, tools: Tools, batch: int, rate: float) -> float:
    """One optimizer step of `rate` on `batch` samples a process; returns this process's loss.

    Its randomness is that of (step, rank), so a resumed run repeats an unbroken one.
    """
    source = generator(10_000_000 + state.step * tools.ranks + tools.rank)
    for group in state.optim.param_groups:
        group["lr"] = rate
    rows = torch.multinomial(tools.weight_N, batch, replacement=True, generator=source)
    z_NZhw = tools.z_NZhw[rows].float()
    loss = loss_of(state.unet, tools, tools.ids_2NL[:, rows], z_NZhw, source)
    state.optim.zero_grad()
    loss.backward()
    share_gradients(state.unet, tools.ranks)
    torch.nn.utils.clip_grad_norm_(state.unet.parameters(), 1.0)
    state.optim.step()
    state.step += 1
    update_average(state)
    return loss.item()


def train_unet(
    out: Path,
    work: Path,
    minutes: float,
    resume: bool,
    batch: int = 32,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Trains for `minutes` of wall clock in all, resumed runs included; exports as it goes.

    With `ranks` processes each takes its part of the batch; process 0 writes.
    """
    state, path = new_state(), work / "unet.pt"
    if resume:
        state.load(path)
    ids_2NL, z_NZhw = cached_latents(out, work)
    abar_T = build.scheduler().alphas_cumprod
    encoders = Encoders(load_parts(out, TEXT))
    tools = Tools(encoders, ids_2NL, z_NZhw, row_weights(), abar_T, rank, ranks)
    clock, recent, mark = Clock(minutes, state.spent), 0.0, time.monotonic()
    exported = saved = state.spent
    while state.spent < clock.limit:
        rate = rate_at(state.spent / clock.limit, 1e-3, rise=0.01, hold=0.4)
        recent += train_step(state, tools, batch // ranks, rate) / 100
        if state.step % 10 == 0:
            state.spent = agreed(clock, ranks)
        if state.step % 100 == 0 and rank == 0:
            speed, mark = 100 * batch / (time.monotonic() - mark), time.monotonic()
            at = f"step {state.step} samples {state.step * batch} spent {state.spent:.0f}s"
            say(f"unet {at} loss {recent:.4f} {speed:.0f}/s")
        recent *= state.step % 100 > 0
        if rank == 0 and (state.spent - saved > 240 or state.spent >= clock.limit):
            state.save(path)
            saved = state.spent
        if rank == 0 and state.spent - exported > 600:
            export(state, out)
            exported = state.spent
    if rank == 0:
        export(state, out)


def _worker(rank: int, ranks: int, meet: str, options: tuple[Path, Path, float, bool]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meet}", rank=rank, world_size=ranks
    )
    train_unet(*options, rank=rank, ranks=ranks)
    torch.distributed.destroy_process_group()


def train_unet_together(out: Path, work: Path, minutes: float, resume: bool, ranks: int) -> None:
    """`train_unet` in `ranks` processes of one thread each.

    Two such processes are 1.4 times as fast as one with two threads on a busy machine.
    """
    cached_latents(out, work)
    write_index(out)
    with tempfile.TemporaryDirectory() as folder:
        options = (out, work, minutes, resume)
        torch.multiprocessing.spawn(_worker, (ranks, f"{folder}/meet", options), nprocs=ranks)
