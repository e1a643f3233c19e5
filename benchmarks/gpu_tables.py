"""The tables of `sdxl_gpu.py`: a row a variant, and a row a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from distillkit.memory.plan import GIB


def show(result: dict[str, Any]) -> Table:
    """A row a variant."""
    table = Table(title=f"{result['device']}: bf16 peak {result['matmul'] / 1e12:.1f} TFLOP/s")
    table.add_column("variant")
    columns = ("weights", "moments", "gradients, activations", "peak", "plan/measured")
    for column in (*columns, "s/iteration", "pictures/s", "of bf16 peak"):
        table.add_column(column, justify="right")
    for name, row in result["variants"].items():
        if "error" in row:
            table.add_row(name, row["error"])
            continue
        planned, measured = row["planned"], row["measured"]
        sizes = [
            f"{planned[k] / GIB:.2f} / {measured[k] / GIB:.2f}"
            for k in ("weights", "moments", "gradients and activations", "peak")
        ]
        share = f"{row['flops_per_second'] / result['matmul']:.0%}"
        speed = (f"{row['seconds']:.2f}", f"{row['pictures_per_second']:.2f}", share)
        table.add_row(name, *sizes, f"{row['ratio']:.3f}", *speed)
    table.caption = "GiB: planned / measured"
    return table


def show_parts(result: dict[str, Any]) -> Iterator[Table]:
    """Seconds of an iteration, and GiB at its peak, a row a part and a column a variant."""
    done = {name: row for name, row in result["variants"].items() if "error" not in row}
    seconds, sizes = Table(title="seconds of an iteration"), Table(title="GiB at its peak")
    for table in (seconds, sizes):
        table.add_column("part")
        for name in done:
            table.add_column(name, justify="right")
    for part in merged([row["seconds_by_part"] for row in done.values()]):
        took = [row["seconds_by_part"].get(part, 0) for row in done.values()]
        seconds.add_row(part, *(f"{each:.3f}" for each in took))
    peaks = [row["peak_by_part"] for row in done.values()]
    if not any(each["measured"] for each in peaks):
        return iter((seconds,))
    for part in merged([each[kind] for each in peaks for kind in ("planned", "measured")]):
        found = [(p["planned"].get(part, 0), p["measured"].get(part, 0)) for p in peaks]
        sizes.add_row(part, *(f"{a / GIB:.2f} / {b / GIB:.2f}" for a, b in found))
    sizes.caption = "planned / measured; copies of 16 bits are measured with what makes them"
    return iter((seconds, sizes))


def merged(found: Sequence[dict[str, Any]]) -> list[str]:
    """All labels, in the order in which they come first."""
    return list(dict.fromkeys(name for each in found for name in each))
