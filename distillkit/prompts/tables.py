"""Prompt sources that are a column of a table: `parquet`, and `dataset` of Hugging Face.

Each needs a package that distillkit does not require; an error names it where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit.errors import UserError, did_you_mean
from distillkit.prompts.filter import FilteredPrompts, missing_path
from distillkit.remarks import Remark

if TYPE_CHECKING:
    from distillkit.contracts import PromptSource


class ParquetPrompts(FilteredPrompts):
    """A column of a parquet file, or of a folder of them; needs pyarrow."""

    type: Literal["parquet"] = "parquet"
    path: str = Field(examples=["prompts.parquet"])
    """The file, or a folder whose .parquet files are read by their names' order; relative to the
    working directory. Rows without text are skipped."""
    column: str = "prompt"
    """The column that holds the prompts."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        yield from missing_path(self.path)
        yield from _missing_package("pyarrow", "parquet")

    def build(self) -> PromptSource:
        _needed("pyarrow", "parquet")
        path = Path(self.path)
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        return self.filter((text for file in files for text in self._texts(file)), self.path)

    def _texts(self, file: Path) -> Iterator[str]:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(file) as table:
                _check_column(file, self.column, table.schema_arrow.names)
                values = table.read(columns=[self.column]).column(self.column).to_pylist()
        except (OSError, ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{file}: can't read the prompts: {reason}") from None
        yield from _texts(file, self.column, values)


class DatasetPrompts(FilteredPrompts):
    """A column of a Hugging Face dataset, from the hub or a folder; needs the package datasets."""

    type: Literal["dataset"] = "dataset"
    source: str = Field(examples=["owner/prompts"])
    """Name on the hub, a folder of data files, or one that `save_to_disk` wrote."""
    subset: str | None = None
    """The dataset's configuration, where it has several."""
    split: str = "train"
    """The split; of the hub and of data files also a part of one, such as `train[:1000]`."""
    revision: str | None = None
    """Branch, tag or commit on the hub; none takes the newest."""
    column: str = "prompt"
    """The column that holds the prompts. Rows without text are skipped."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        if self.source.startswith((".", "/")):
            yield from missing_path(self.source, "source")
        yield from _missing_package("datasets", "dataset")

    def build(self) -> PromptSource:
        rows = self._rows(_needed("datasets", "dataset"))
        _check_column(self.source, self.column, rows.column_names)
        return self.filter(_texts(self.source, self.column, rows[self.column]), self.source)

    def _rows(self, datasets: Any) -> Any:
        folder = Path(self.source)
        try:
            if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
                return datasets.load_dataset(
                    self.source, self.subset, split=self.split, revision=self.revision
                )
            saved = datasets.load_from_disk(self.source)
        except Exception as error:  # the library raises whatever its readers raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"{self.source}: can't load the dataset: {reason}") from None
        if isinstance(saved, datasets.Dataset):
            return saved
        if self.split not in saved:
            guess = did_you_mean(self.split, saved)
            raise UserError(
                f"{self.source}: no split '{self.split}';{guess} splits: {', '.join(saved)}"
            )
        return saved[self.split]


def _missing_package(package: str, source: str) -> Iterable[Remark]:
    if find_spec(package) is None:
        yield Remark(_needs(package, source))


def _needs(package: str, source: str) -> str:
    return f"'{source}' needs {package}, which is not installed: pip install {package}"


def _needed(package: str, source: str) -> Any:
    """The package, imported."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UserError(f"prompts: {_needs(package, source)}") from None


def _check_column(where: object, column: str, columns: list[str]) -> None:
    if column not in columns:
        guess = did_you_mean(column, columns)
        raise UserError(f"{where}: no column '{column}';{guess} columns: {', '.join(columns)}")


def _texts(where: object, column: str, values: Iterable[Any]) -> Iterator[str]:
    """The column's texts, without what is missing or blank."""
    for row, value in enumerate(values, start=1):
        if value is not None and not isinstance(value, str):
            raise UserError(
                f"{where}: column '{column}' should hold prompts, and row {row} has {value!r}"
            )
        if value and value.strip():
            yield value.strip()
