"""`distillkit plan RECIPE`: what it takes before anything is loaded, and which cards hold it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillkit.cli.terminal.options import Changes, RecipeName

if TYPE_CHECKING:
    from rich.table import Table

    from distillkit.memory.fit import Fit
    from distillkit.memory.plan import Plan


def plan(
    recipe: RecipeName,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=1, help="Memory of your card in GB.", show_default="24, 40, 48 and 80"),
    ] = None,
    set_: Changes = None,
) -> None:
    """Parameters, memory and FLOPs by part, without weights; which cards hold it, and with what."""
    from distillkit.cli.terminal.console import console
    from distillkit.recipe.load import load_recipe
    from distillkit.recipe.preflight import preflight

    given = list(set_ or ())
    loaded = load_recipe(recipe, given)
    notes = preflight(loaded, leave_out=("prompts", "samples", "metrics", "optim"))

    from distillkit.memory.fit import find_fits
    from distillkit.memory.plan import CARDS, make_plan

    made = make_plan(loaded.recipe)
    out = console()
    tables = (parts_table(made), peak_table(made), flops_table(made), disk_table(made))
    for table in tables:
        out.print(table, "")
    for line in (
        *describe_samples(made),
        *describe_compiling(made),
        *describe_lives(made),
        *(f"note: {note}" for note in notes),
    ):
        out.print(line, soft_wrap=True)
    cards = (gpu_memory,) if gpu_memory is not None else CARDS
    for card, fit in find_fits(
        lambda sets: load_recipe(recipe, given + list(sets)).recipe, cards, made
    ):
        for line in describe_fit(card, fit, made, recipe, given):
            out.print(line)


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:,.2f}" if size else "-"


def parts_table(made: Plan) -> Table:
    """What each part has on the device."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="On the device, GiB", title_justify="left")
    table.add_column("part")
    for column in ("parameters, M", "weights", "gradients", "moments"):
        table.add_column(column, justify="right")
    for part in made.parts:
        sizes = (part.weights, part.gradients, part.optimizer)
        if any(sizes):
            table.add_row(part.name, f"{part.parameters / 1e6:,.1f}", *map(gib, sizes))
    return table


def peak_table(made: Plan) -> Table:
    """What makes the peak."""
    rows = [
        ("weights and averages", sum(part.weights for part in made.parts)),
        ("gradients", sum(part.gradients for part in made.parts)),
        ("moments", sum(part.optimizer for part in made.parts)),
        *((f"activations: {name}", size) for name, size in made.activations.items()),
        ("peak of a run, estimated", made.peak),
    ]
    if made.offloaded:
        rows.append(("offloaded to main memory", made.offloaded))
    return _two_columns("Peak, GiB", [(name, gib(size)) for name, size in rows if size > 2**20])


def flops_table(made: Plan) -> Table:
    """What an iteration computes."""
    whole = sum(made.flops.values())
    units = (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))
    unit, size = next((unit for unit in units if whole >= unit[1]), units[-1])
    rows = [(name, f"{f / size:,.3f}  {f / whole:6.1%}") for name, f in made.flops.items()]
    length = "a one-step roll-out" if made.steps == 1 else f"a roll-out of {made.steps} steps"
    rows.append((f"iteration with {length}", f"{whole / size:,.3f}  100.0%"))
    if made.rollout:
        others = "longer roll-outs" if made.steps == 1 else "other roll-outs"
        rows.append((f"{others}, mean of the run", f"{made.rollout / size:+,.3f}        "))
    return _two_columns(f"An iteration, {unit}", rows)


def disk_table(made: Plan) -> Table:
    """What the run's folder and its cache take."""
    from distillkit.memory.disk import disk_of

    sizes = disk_of(made.recipe, made.dry)
    rows = [(name, f"{size / 2**30:,.3f}") for name, size in sizes.items() if size]
    return _two_columns("Disk, GiB", rows)


def describe_lives(made: Plan) -> Sequence[str]:
    """How often the heads of each critic are trained before they are reset, and in how many
    iterations of the run one judges that judges some of them."""
    from distillkit.memory.head_life import count_judged, count_lives

    state, schedule, lines = made.dry.state, made.dry.schedule, []
    for critic in state.critics:
        lives = f"{count_lives(critic, state.slices.total)}"
        if critic.steps:
            judged, whole = count_judged(critic, schedule), len(schedule)
            lives += f"; this critic judges in about {judged:,} of the run's {whole:,} iterations"
        lines.append(f"Heads{f' of {critic.name}' if critic.name else ''}: {lives}")
    return lines


def describe_samples(made: Plan) -> Sequence[str]:
    """What it saves that the teacher's samples are used several times."""
    from distillkit.memory.labels import SAMPLING

    if not made.buffer:
        return []
    uses, mean = made.recipe.samples.uses, made.flops[SAMPLING]
    whole = sum(made.flops.values())
    once = whole + (uses - 1) * mean
    return [
        f"Teacher samples: each used {uses} times; sampling is {mean / whole:.0%} of an "
        f"iteration's FLOPs, and was {uses * mean / once:.0%}, so that the iteration takes "
        f"{whole / once:.0%}; {made.buffer / 2**20:,.0f} MiB of main memory"
    ]


COMPILING_PAYS = 1e18
"""FLOPs of a run that wins back the minutes of compiling (our estimate): an hour of a large GPU."""


def describe_compiling(made: Plan) -> Sequence[str]:
    """Whether the run is long enough for torch.compile."""
    each = sum(made.flops.values()) + made.rollout
    whole, chosen = each * len(made.dry.schedule), made.recipe.run.compile
    said = f"the run computes {whole / 1e15:,.2f} PFLOP"
    if chosen == "inductor" and whole < COMPILING_PAYS:
        return [f"run.compile: does not pay: {said}, and compiling takes minutes"]
    if chosen is None and whole >= COMPILING_PAYS:
        return [f"run.compile: `inductor` may pay on a GPU: {said}"]
    return []


def _two_columns(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def describe_fit(
    card: float, fit: Fit | None, made: Plan, recipe: str, given: Sequence[str]
) -> Sequence[str]:
    """Whether a card holds it, and the lines that make it do so."""
    from distillkit.recipe.yaml12 import dump

    if fit is None:
        return [f"{card:g} GB: does not fit, whatever is turned on"]
    if not fit.sets:
        return [f"{card:g} GB: fits as it is ({gib(made.peak)} GiB)"]
    flags = " ".join(f"--set {shlex.quote(text)}" for text in [*given, *fit.sets])
    lines = dump(_nested(fit.sets, fit.plan)).rstrip().splitlines()
    missing = any("bits=8" in text for text in fit.sets) and find_spec("bitsandbytes") is None
    return [
        f"{card:g} GB: fits ({gib(fit.plan.peak)} GiB) with these lines in the recipe:",
        *(f"    {line}" for line in lines),
        f"  or: distillkit run {shlex.quote(recipe)} {flags}",
        *(["  8 bits need: pip install 'distillkit[8bit]'"] if missing else []),
    ]


def _nested(sets: Sequence[str], fit: Plan) -> dict[str, Any]:
    """`a.b=c` as a mapping with the values of the recipe that has them; a list is shown whole, as
    a recipe has it."""
    whole, given = fit.recipe.model_dump(), fit.recipe.model_dump(exclude_unset=True)
    shown: dict[str, Any] = {}
    for text in sets:
        names = text.partition("=")[0].split(".")
        in_list = next((i for i, name in enumerate(names) if name.isdigit()), None)
        names = names[:in_list]
        value: Any = whole if in_list is None else given
        for name in names:
            value = value[name]
        inner: dict[str, Any] = shown
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
        inner[names[-1]] = value
    return shown
