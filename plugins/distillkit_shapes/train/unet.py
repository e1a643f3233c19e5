"""Stage unet: training on cached latents with an EMA, in processes that share a time budget.

Legend: N samples, Z = 4 latent channels, h = w = 16, L = 20 tokens.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distillkit_shapes import architecture
from distillkit_shapes.train.data import (
    TimeBudget,
    generator,
    load_parts,
    log,
    lr_at,
    replace_folder,
    save_atomic,
)
from distillkit_shapes.train.denoising import TrainingSet, denoising_loss
from distillkit_shapes.train.latents import TEXT, cached_latents, row_weights
from distillkit_shapes.train.text import Encoders


@dataclass
class UNetState:
    """All that a resumed run needs."""

    unet: Any
    ema: Any
    optim: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0
    """Seconds of the budget that are used."""

    def save(self, path: Path) -> None:
        """Writes the whole state at once."""
        owners = {"unet": self.unet, "ema": self.ema, "optim": self.optim}
        state = {name: owner.state_dict() for name, owner in owners.items()}
        save_atomic(state | {"step": self.step, "spent": self.spent}, path)

    def load(self, path: Path) -> None:
        """Restores the saved state."""
        state = torch.load(path)
        for name in ("unet", "ema", "optim"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.spent = state["step"], state["spent"]


def new_state() -> UNetState:
    """A seeded UNet, its EMA and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(300)
        unet = architecture.unet()
    optim = torch.optim.AdamW(
        unet.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    return UNetState(unet, copy.deepcopy(unet).requires_grad_(False), optim)


def load_training_set(out: Path, work: Path) -> TrainingSet:
    """Cached latents and captions, and what an iteration needs to use them."""
    ids_2NL, z_NZhw = cached_latents(out, work)
    return TrainingSet(
        encoders=Encoders(load_parts(out, TEXT)),
        ids_2NL=ids_2NL,
        z_NZhw=z_NZhw,
        weight_N=row_weights(),
        alpha_bar_T=architecture.scheduler().alphas_cumprod,
    )


def update_ema(state: UNetState, max_decay: float = 0.9995) -> None:
    """EMA of the weights; its decay rises with the step up to `max_decay`."""
    decay = min(max_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.unet.parameters()), 1 - decay)


def export(state: UNetState, out: Path) -> None:
    """The EMA of the UNet in float16 as out/unet, swapped in whole."""
    replace_folder(copy.deepcopy(state.ema).half(), out / "unet")
    log(f"unet exported at step {state.step}")


def write_index(out: Path) -> None:
    """The pipeline's own files: model_index.json and the scheduler's config."""
    parts = load_parts(out, ("vae", *TEXT))
    parts |= {"unet": architecture.unet(), "scheduler": architecture.scheduler()}
    pipe = architecture.pipeline(parts)
    pipe.scheduler.save_pretrained(out / "scheduler")
    pipe.save_config(out)


def all_reduce_gradients(unet: Any, ranks: int) -> None:
    """Averages gradients over the processes, as one flat vector."""
    if ranks == 1:
        return
    grads = [weight.grad for weight in unet.parameters()]
    flat = torch.cat([grad.flatten() for grad in grads])
    torch.distributed.all_reduce(flat)
    for grad, mean in zip(grads, (flat / ranks).split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def slowest_spent(budget: TimeBudget, ranks: int) -> float:
    """Seconds spent by the slowest process, the same on all: they must stop together."""
    spent = torch.tensor(budget.spent)
    if ranks > 1:
        torch.distributed.all_reduce(spent, torch.distributed.ReduceOp.MAX)
    return spent.item()


def train_step(
    state: UNetState, training_set: TrainingSet, batch: int, lr: float, rank: int, ranks: int
) -> float:
    """One optimizer step on `batch` samples a process; returns this process's loss.

    Its randomness depends on (step, rank) alone, so a resumed run repeats an unbroken one.
    """
    rng = generator(10_000_000 + state.step * ranks + rank)
    for group in state.optim.param_groups:
        group["lr"] = lr
    rows = torch.multinomial(training_set.weight_N, batch, replacement=True, generator=rng)
    ids_2NL, z_NZhw = training_set.ids_2NL[:, rows], training_set.z_NZhw[rows].float()
    loss = denoising_loss(state.unet, training_set, ids_2NL, z_NZhw, rng)
    state.optim.zero_grad()
    loss.backward()
    all_reduce_gradients(state.unet, ranks)
    torch.nn.utils.clip_grad_norm_(state.unet.parameters(), 1.0)
    state.optim.step()
    state.step += 1
    update_ema(state)
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
    training_set = load_training_set(out, work)
    budget, mean_loss = TimeBudget(minutes, state.spent), 0.0
    mark, exported, saved = time.monotonic(), state.spent, state.spent
    while state.spent < budget.limit:
        lr = lr_at(state.spent / budget.limit, 1e-3, warmup=0.01, hold=0.4)
        mean_loss += train_step(state, training_set, batch // ranks, lr, rank, ranks) / 100
        # The processes agree on the time every 10 steps, and report every 100.
        if state.step % 10 == 0:
            state.spent = slowest_spent(budget, ranks)
        if state.step % 100 == 0:
            speed, mark = 100 * batch / (time.monotonic() - mark), time.monotonic()
            at = f"step {state.step} samples {state.step * batch} spent {state.spent:.0f}s"
            if rank == 0:
                log(f"unet {at} loss {mean_loss:.4f} {speed:.0f}/s")
            mean_loss = 0.0
        # A checkpoint every 4 minutes and at the end, an export every 10.
        if rank == 0 and (state.spent - saved > 240 or state.spent >= budget.limit):
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


def launch_unet(out: Path, work: Path, minutes: float, resume: bool, ranks: int) -> None:
    """`train_unet` in `ranks` processes of one thread each.

    Two such processes are 1.4 times as fast as one with two threads on a busy machine.
    """
    cached_latents(out, work)
    write_index(out)
    with tempfile.TemporaryDirectory() as folder:
        options = (out, work, minutes, resume)
        torch.multiprocessing.spawn(_worker, (ranks, f"{folder}/meet", options), nprocs=ranks)
