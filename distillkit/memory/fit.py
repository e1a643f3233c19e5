"""Which switches make a recipe fit a card: tried one after the other, as `--set` would set them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit.memory.plan import GIB, Plan, make_plan
from distillkit.recipe.schema import Recipe

Load = Callable[[Sequence[str]], Recipe]
"""The recipe with these `a.b=c` overrides."""

Group = list[tuple[str, Any]]
"""Configs of one socket's parts, each with its place in the recipe."""
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
    critics = recipe.all_critics()
    if critics and not run.offload_heads:
        found.append(MemorySwitch(("run.offload_heads=true",)))
    groups: list[Group] = [[("teacher", recipe.teacher)], [("student", recipe.student)]]
    groups.append(
        [
            (f"critics.{name}.backbone" if name else "backbone", critic.backbone)
            for name, critic in critics.items()
        ]
    )
    groups.append([(f"losses.{i}", loss) for i, loss in enumerate(recipe.losses)])
    for group in groups:
        found += _unset(group, "saves_memory")
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
    for group in groups:
        found += _unset(group, "trains_less")
    return found


def _unset(group: Group, which: str) -> Iterator[MemorySwitch]:
    """A switch for each of the fields that `which` of these parts' configs names; one sets it in
    all of them, since the peak is that of whichever part takes most."""
    fields: dict[str, list[str]] = {}
    for path, part in group:
        for field, value in getattr(part, which).items():
            if getattr(part, field) != value:
                text = f"{field}={_text(value)}"
                fields.setdefault(text, []).append(f"{path}.{text}")
    yield from (MemorySwitch(tuple(sets)) for sets in fields.values())


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
