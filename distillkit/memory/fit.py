"""Which switches make a recipe fit a card: tried one after the other, as `--set` would set them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit.memory.plan import GIB, Plan, make_plan
from distillkit.recipe.schema import Recipe

Load = Callable[[Sequence[str]], Recipe]
"""The recipe with these `a.b=c` overrides."""

LEAST = 0.05 * GIB
"""A switch that saves less is left as it was."""
NO_DRY_RUN = ("run.offload_heads=", "optim.")
"""Overrides of fields that no dry run depends on."""


@dataclass(frozen=True)
class MemorySwitch:
    """Fields to set together."""

    sets: tuple[str, ...]
    """Each as `a.b=c`."""
    costs: bool = False
    """Whether training is slower or rougher for it, so that it is taken back where it can be."""


@dataclass(frozen=True)
class Fit:
    """How a recipe fits a card."""

    sets: tuple[str, ...]
    plan: Plan


def find_fits(load: Load, cards: Sequence[float], plan: Plan) -> Iterator[tuple[float, Fit | None]]:
    """For each card, the largest first: what to set so that it fits, or None.

    `plan`: of the recipe as it is.
    """
    on: list[MemorySwitch] = []
    left = switches(plan.recipe)
    for card in sorted(cards, reverse=True):
        while left and not plan.fits(card):
            switch = left.pop(0)
            same = all(text.startswith(NO_DRY_RUN) for text in switch.sets)
            recipe = load(_sets([*on, switch]))
            tried = make_plan(recipe, plan.dry if same else None)
            if tried.peak < plan.peak - LEAST:
                on, plan = [*on, switch], tried
        yield card, _without_needless(load, card, on, plan) if plan.fits(card) else None


def _without_needless(load: Load, card: float, on: Sequence[MemorySwitch], plan: Plan) -> Fit:
    """The fit without the costly switches that later ones made needless."""
    kept = list(on)
    for switch in [s for s in on[:-1] if s.costs]:
        fewer = [s for s in kept if s is not switch]
        tried = make_plan(load(_sets(fewer)))
        if tried.fits(card):
            kept, plan = fewer, tried
    return Fit(tuple(_sets(kept)), plan)


def _sets(switches: Sequence[MemorySwitch]) -> list[str]:
    return [text for switch in switches for text in switch.sets]


def switches(recipe: Recipe) -> list[MemorySwitch]:
    """What the recipe can still switch on: lossless first, what trains fewer weights last."""
    run, optim = recipe.run, recipe.optim
    found = [MemorySwitch(("run.precision=bf16",))] if run.precision == "no" else []
    if recipe.pool is not None and not run.offload_heads:
        found.append(MemorySwitch(("run.offload_heads=true",)))
    parts = [("teacher", recipe.teacher), ("student", recipe.student)]
    if recipe.backbone is not None:
        parts.append(("backbone", recipe.backbone))
    for socket, part in parts:
        found += [MemorySwitch((s,)) for s in _unset(socket, part, part.saves_memory)]
    if recipe.student.ema and run.parallel == "ddp" and not run.offload_ema:
        found.append(MemorySwitch(("run.offload_ema=true",), costs=True))
    if optim.student.bits == 32:
        with_warmup = ["student", *(["warmup"] if optim.warmup else [])]
        found.append(
            MemorySwitch(tuple(f"optim.{name}.bits=8" for name in with_warmup), costs=True)
        )
    if smaller := _smaller_batch(run.batch, run.accumulate):
        batch, accumulate = smaller
        found.append(
            MemorySwitch((f"run.batch={batch}", f"run.accumulate={accumulate}"), costs=True)
        )
    for socket, part in parts:
        found += [MemorySwitch((s,)) for s in _unset(socket, part, part.trains_less)]
    return found


def _unset(socket: str, part: Any, wanted: Any) -> Iterator[str]:
    for field, value in wanted.items():
        if getattr(part, field) != value:
            yield f"{socket}.{field}={_text(value)}"


def _text(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(v) for v in value)}]"
    return str(value)


def _smaller_batch(batch: int, accumulate: int) -> tuple[int, int] | None:
    """Half the pictures a micro-batch at most, and as many an iteration."""
    whole = batch * accumulate
    halves = [b for b in range(1, batch // 2 + 1) if whole % b == 0]
    return (halves[-1], whole // halves[-1]) if halves else None
