"""`distillkit eval RUN|FOLDER|MODEL`: pictures with fixed seeds, metrics, one table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from distillkit.cli.terminal.options import Family, ModelName, Shift, Weights
from distillkit.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from distillkit.configs import MetricsConfig
    from distillkit.evaluation.benchmarks import PromptFile
    from distillkit.evaluation.judge import Judge


Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Prompts: .txt, .jsonl or .parquet; a benchmark's file or folder.",
        show_default="those of the run's own metrics",
    ),
]
PromptField = Annotated[
    str | None,
    typer.Option(
        help="Field of a .jsonl file, column of a .parquet, that holds the prompt.",
        show_default="prompt",
    ),
]
MetricNames = Annotated[
    str, typer.Option(help="Metrics parts, separated by commas; see `plugins list`.")
]
StepCounts = Annotated[str, typer.Option(help="Steps of the student.")]
Reference = Annotated[
    Path | None, typer.Option(help="Folder of real pictures, for metrics that compare.")
]
WithTeacher = Annotated[
    bool, typer.Option("--teacher", help="Draw the teacher too, and compare with it.")
]
Count = Annotated[int | None, typer.Option(help="Pictures of a row.", show_default="one a prompt")]
PerPrompt = Annotated[int | None, typer.Option(help="Pictures of each prompt, with a seed each.")]
Seed = Annotated[
    int | None, typer.Option(help="Seed of the noise.", show_default="the run's own metrics'")
]
Batch = Annotated[
    int | None, typer.Option(help="Pictures at a time.", show_default="the recipe's run.batch")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder to write.", show_default="RUN/eval, or evals/NAME")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="METRIC.FIELD=VALUE",
        help="A field of a metrics part (`plugins show NAME --socket metrics`).",
    ),
]
Benchmark = Annotated[
    str | None,
    typer.Option(help="geneval or dpg: also write the folders that its judge reads."),
]


def eval(
    source: ModelName,
    prompts: Prompts = None,
    field: PromptField = None,
    metrics: MetricNames = "",
    steps: StepCounts = "1,2,4",
    reference: Reference = None,
    teacher: WithTeacher = False,
    count: Count = None,
    per_prompt: PerPrompt = None,
    seed: Seed = None,
    batch: Batch = None,
    out: Out = None,
    set_: Settings = None,
    benchmark: Benchmark = None,
    weights: Weights = None,
    shift: Shift = None,
    family: Family = None,
) -> None:
    """Judge a student: draw pictures with fixed seeds, measure them, print one table.

    Pictures that are there already are not drawn again, so the same command goes on after a stop.
    With torchrun, several processes share the drawing. A run's own metrics stay as they are.
    """
    wanted = _steps(steps)
    _check_counts({"--count": count, "--per-prompt": per_prompt, "--batch": batch})
    read, seed = _read(source, prompts, field, benchmark, count, seed)
    count = count or _each(per_prompt, benchmark) * len(read.prompts)
    known: dict[str, Any] = {"num_images": count, "seed": seed, "teacher": teacher}
    known |= {"reference": str(reference)} if reference is not None else {}
    configs = _configure(metrics, set_ or (), known)

    from distillkit.cli.terminal.progress import ProgressCallback
    from distillkit.evaluation.judge import Judge, check_teacher
    from distillkit.evaluation.source import open_source
    from distillkit.training.processes import join_processes, set_threads

    check_teacher(configs, teacher)
    processes, terminal = join_processes(), ProgressCallback.for_process()
    device, tell = processes.device, terminal.on_message
    tell(f"Device  {device}{set_threads(None, processes)}")
    opened: dict[str, Any] = {"teacher": teacher, "weights": weights, "shift": shift}
    with terminal.bar:
        judge = Judge(
            source=open_source(source, wanted, family=family, device=device, tell=tell, **opened),
            out=out or _default_out(source),
            prompts=read.prompts,
            seed=seed,
            count=count,
            batch=batch or 0,
            processes=processes,
            progress=terminal.on_progress,
            tell=tell,
            command=["distillkit", *sys.argv[1:]],
        )
        tell(f"Folder  {judge.out}")
        judge.draw(any(config.needs_teacher for config in configs))
        processes.destroy_process_group()  # a process that ends without it may abort
        if processes.is_main_process:
            _finish(judge, configs, benchmark, read.names, terminal)


def _read(
    source: str,
    prompts: Path | None,
    field: str | None,
    benchmark: str | None,
    count: int | None,
    seed: int | None,
) -> tuple[PromptFile, int]:
    """The prompts and the noise's seed: a file's, or those of the run's own metrics; a seed that
    is given comes first."""
    from distillkit.evaluation.benchmarks import PromptFile, read_prompts
    from distillkit.evaluation.source import own_prompts

    if prompts is not None:
        return read_prompts(prompts, benchmark, field), seed or 0
    if benchmark is not None:
        raise UserError(f"--benchmark {benchmark}: give its prompts by --prompts")
    texts, own_seed = own_prompts(source, count)
    return PromptFile(texts), own_seed if seed is None else seed


def _each(per_prompt: int | None, benchmark: str | None) -> int:
    """Pictures of a prompt: what is asked for, or as many as the benchmark's judge reads."""
    from distillkit.evaluation.benchmarks import PER_PROMPT

    return per_prompt or (PER_PROMPT if benchmark else 1)


def _finish(
    judge: Judge,
    configs: Sequence[MetricsConfig],
    benchmark: str | None,
    names: Sequence[str],
    terminal: Any,
) -> None:
    """Benchmark's folders, grids, metrics and the table, on the main process."""
    from distillkit.evaluation.benchmarks import write_benchmark
    from distillkit.evaluation.table import metrics_table

    for row in judge.source.rows if benchmark is not None else ():
        place = judge.out / str(benchmark) / row.key
        write_benchmark(str(benchmark), place, judge.pictures(row), judge.own.order, names)
        terminal.on_message(f"{benchmark}  {place}")
    found = judge.measure(configs)
    if found:
        terminal.console.print(metrics_table(found))
    terminal.on_message(f"Grid    {judge.out / 'grids' / 'compare.png'}")
    if found:
        terminal.on_message(f"Table   {judge.out / 'table.md'}")


def _steps(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise UserError(f"--steps {text}: whole numbers separated by commas, such as 1,2,4")
    return sorted({int(word) for word in words})


def _check_counts(options: Mapping[str, int | None]) -> None:
    if options["--count"] is not None and options["--per-prompt"] is not None:
        raise UserError("--count and --per-prompt both say how many pictures; leave one out")
    for name, value in options.items():
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: at least 1")


def _default_out(source: str) -> Path:
    """`RUN/eval`; for a model, whose folder is its owner's, a name of its own in `evals/`: two
    runs' published students are not one folder."""
    folder = Path(source).expanduser()
    if (folder / "recipe.yaml").is_file():
        return folder / "eval"
    if not folder.exists():  # a repository's name
        return Path("evals") / source.replace("/", "--")
    folder = folder.resolve()
    inside = (folder.parent / "recipe.yaml").is_file()
    return Path("evals") / (f"{folder.parent.name}-{folder.name}" if inside else folder.name)


def _configure(
    metrics: str, settings: Sequence[str], known: Mapping[str, Any]
) -> list[MetricsConfig]:
    """The metrics parts by name. `known`: what the command tells those that have such a field."""
    from distillkit.cli.terminal.settings import configure
    from distillkit.registry.entry_points import installed

    names = list(dict.fromkeys(word.strip() for word in metrics.split(",") if word.strip()))
    fields: dict[str, list[str]] = {name: [] for name in names}
    for setting in settings:
        name, dot, rest = setting.partition(".")
        if not dot or name not in fields:
            raise UserError(
                f"--set {setting}: write METRIC.FIELD=VALUE;{did_you_mean(name, names)} "
                f"metrics of this command: {', '.join(names) or 'none'}"
            )
        fields[name].append(rest)
    there = {e.name: e.config for e in installed().registry.entries() if e.socket == "metrics"}
    made: list[Any] = []
    wrong: list[str] = []
    for name in names:
        has = there[name].model_fields if name in there else {}
        given = {key: value for key, value in known.items() if key in has}
        config = configure("metrics", name, fields[name], f"--metrics {name}", given)
        # Weights that are missing, before thousands of pictures are drawn.
        wrong += [
            f"--metrics {name}: {remark.field}{': ' if remark.field else ''}{remark.message}"
            for remark in config.preflight(None)
            if remark.is_error
        ]
        made.append(config)
    if wrong:
        raise UserError("\n".join(wrong))
    return cast("list[MetricsConfig]", made)
