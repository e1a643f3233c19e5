"""What a model card says of a run's metrics: tables with the commands that made them, results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillkit.evaluation import table
from distillkit.evaluation.rows import LABELS
from distillkit.report.report import BETTER, as_json
from distillkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

BESIDE = ("teacher", "start")
"""Rows that a student's are compared with."""


@dataclass(frozen=True)
class Measured:
    """One evaluation of the student that is shared."""

    metrics: Mapping[str, Any]
    """As `metrics.json` has them, without the rows of other weights."""
    own: Sequence[str]
    """The rows of the weights that are shared."""
    command: Sequence[str]
    """What made it, word by word, as it was called."""
    by: str
    """`run` or `eval`: which command drew the pictures."""

    @property
    def table(self) -> str:
        """Markdown."""
        return table.markdown_table(self.metrics)

    @property
    def how(self) -> str:
        """How many pictures, of which noise."""
        count = next(iter(table.rows_in(self.metrics).values())).get("num_images", "?")
        return f"{count} pictures a row, noise of seed {self._seed}."

    @property
    def _seed(self) -> Any:
        return self.metrics.get("made_with", {}).get("seed", "?")

    def results(self, task: str) -> Iterator[EvalResult]:
        """The first metrics of the student's own rows, for the card's front matter."""
        from huggingface_hub import EvalResult

        for row in self.own:
            values = self.metrics[row]
            for metric in table.first_columns(self.metrics):
                if values.get(metric) is None:
                    continue
                yield EvalResult(
                    task_type=task,
                    dataset_type="prompts",
                    dataset_config=self.by,  # results are told apart by it, not by the name
                    dataset_name=f"{values.get('num_images', '?')} prompts, seed {self._seed}",
                    metric_type=metric,
                    metric_name=f"{table.title(self.metrics, metric)} ({LABELS[row]})",
                    metric_value=round(values[metric], 6),
                )


def measured(run: RunFolder, snapshot: str | None) -> list[Measured]:
    """The run's own evaluation, and `distillkit eval`'s in its folder, where they are there.

    `snapshot`: the student of an earlier moment, which `eval` does not judge; None is the newest.
    """
    metrics, judged = as_json(run.metrics), as_json(run.path / "eval" / "metrics.json")
    snapshots = metrics.get("made_with", {}).get("snapshots", {})
    last = next((name for row, name in snapshots.items() if row.startswith("student_")), None)
    shown = snapshot or last
    own = [row for row, name in snapshots.items() if name == shown and row in metrics]
    found = [Measured(metrics, own, ["distillkit", "run", "recipe.yaml"], "run")] if own else []
    if shown != last and own:
        rest = {key: value for key, value in metrics.items() if key not in LABELS}
        rest |= {key: metrics[key] for key in (*BESIDE, *own) if key in metrics}
        return [Measured(rest, own, found[0].command, "run")]
    own = [row for row in table.rows_in(judged) if row not in BESIDE]
    weights = judged.get("made_with", {}).get("snapshots", {})  # earlier versions named none
    own = [row for row in own if weights.get(row, last) == last]
    if own and shown == last:
        command = judged.get("made_with", {}).get("command", [])
        found.append(Measured(judged, own, command, "eval"))
    return found


def meanings(found: Sequence[Measured]) -> dict[str, str]:
    """Title of each metric in the tables -> what it is, and which values are better."""
    said: dict[str, str] = {}
    for each in found:
        info = each.metrics.get("info", {})
        for name in table.first_columns(each.metrics):
            if name in info:
                better = BETTER[info[name]["better"]]
                said[info[name]["title"]] = f"{info[name]['description']} {better}"
    return said
