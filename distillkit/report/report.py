"""A run as one page that opens offline: metrics, grids, curves, recipe, versions."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.atomic import write_text
from distillkit.evaluation import table
from distillkit.evaluation.rows import LABELS
from distillkit.report.charts import charts, phases_of
from distillkit.report.verdict import outcome, verdict
from distillkit.runs.folder import RunFolder, read_log

BETTER = {
    "lower": "Lower is better.",
    "higher": "Higher is better.",
    "teacher": "Closer to the teacher's is better.",
}
PREVIEWS = 16
"""Previews shown at most, evenly spread over the run."""


def write_report(run: RunFolder) -> Path:
    """Write `report.html` from what the run folder holds by now; the run may be unfinished."""
    write_text(run.report, render("report.html.j2", contents(run)))
    return run.report


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page by one of this room's templates; only what goes into HTML is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("distillkit.report", ""),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def contents(run: RunFolder) -> dict[str, Any]:
    """What the template shows."""
    log = read_log(run.log) if run.log.exists() else []
    metrics = as_json(run.metrics)
    about = as_json(run.path / "run.json")
    return {
        "name": run.path.resolve().name,
        "finished": run.student.is_dir(),
        "iterations": log[-1]["iteration"] + 1 if log else 0,
        "duration": duration(sum(row["seconds"] for row in log)),
        "phases": [phase.name for phase in phases_of(log)],
        "table": _table(metrics),
        "second": _second(metrics),
        "floor": _floor(metrics),
        "compare": picture(run.grids / "compare.png"),
        "metrics": bool(metrics),
        "verdict": " ".join(filter(None, (verdict(log), outcome(metrics)))),
        "charts": charts(log),
        "previews": _previews(run.previews),
        "grids": [
            {"label": LABELS[key], "picture": picture(run.grids / f"{key}.png")}
            for key in LABELS
            if (run.grids / f"{key}.png").is_file()
        ],
        "command": " ".join(about.get("command", [])),
        "versions": {"python": about.get("python", "?")} | about.get("versions", {}),
        "plugins": about.get("plugins", {}),
        "recipe": run.recipe.read_text(encoding="utf-8") if run.recipe.is_file() else "",
    }


def _table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics to look at first."""
    return _columns(metrics, table.first_columns(metrics))


def _second(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The other metrics, if any."""
    first = table.first_columns(metrics)
    rest = [column for column in table.columns_in(metrics) if column not in first]
    return _columns(metrics, rest) if rest else None


def _columns(metrics: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any] | None:
    """Head, rows of (text, mark) cells and explanations of a table with these columns."""
    rows = table.rows_in(metrics)
    if not rows:
        return None
    marks = {column: table.extremes(metrics, column) for column in columns}
    info = metrics.get("info", {})

    def cell(key: str, column: str) -> tuple[str, str]:
        best, worst = marks[column]
        mark = "best" if key in best else "worst" if key in worst else ""
        return table.show(rows[key].get(column)), mark

    return {
        "head": [table.title(metrics, column) for column in columns],
        "rows": [(LABELS[key], [cell(key, column) for column in columns]) for key in rows],
        "meanings": [
            (info[c]["title"], f"{info[c]['description']} {BETTER[info[c]['better']]}")
            for c in columns
            if c in info
        ],
        "num_images": next(iter(rows.values())).get("num_images"),
        "seed": metrics.get("made_with", {}).get("seed"),
    }


def _floor(metrics: Mapping[str, Any]) -> dict[str, str] | None:
    """The floor, its spread and the student's excess over it, as texts."""
    summary = metrics.get("summary")
    if not summary:
        return None
    numbers = {"floor": summary["floor"], "ratio": summary.get("excess_ratio")}
    numbers |= {name: summary.get(f"floor_half_{name}") for name in ("mean", "spread")}
    numbers |= {key: summary["excess"].get(key) for key in ("start", "student_1")}
    shown = {name: "" if value is None else table.show(value) for name, value in numbers.items()}
    return shown | {"metric": table.title(metrics, summary["metric"])}


def _previews(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if len(files) > PREVIEWS:
        files = [files[round(i * (len(files) - 1) / (PREVIEWS - 1))] for i in range(PREVIEWS)]
    return [{"label": _when(f.stem), "picture": picture(f)} for f in files]


def _when(stem: str) -> str:
    return f"after iteration {int(stem)}" if stem.isdigit() else stem


def picture(path: Path) -> str:
    """A PNG as a data URI; empty where there is none."""
    if not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def as_json(path: Path) -> dict[str, Any]:
    """The mapping in a file; an empty one where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def duration(seconds: float) -> str:
    """`2 h 5 min`, or `5 min 7 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
