"""Prompts from a column of a table: parquet, Hugging Face datasets. Every table is made here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from distillkit import testing
from distillkit.errors import UserError
from distillkit.prompts.tables import DatasetPrompts, ParquetPrompts

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

CAPTIONS = [" a cat ", None, "a dog", "", "a cat"]


def table(file: Path, **columns: list[Any]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file)
    return str(file)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps what it read in a folder of the user; a test has its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def test_parquet_gives_a_columns_texts_in_order(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", caption=CAPTIONS, width=[1, 2, 3, 4, 5])
    prompts = ParquetPrompts(path=path, column="caption")
    assert list(prompts.build()) == ["a cat", "a dog", "a cat"]
    testing.check(prompts)


def test_parquet_reads_a_folder_by_the_names_of_its_files(tmp_path: Path) -> None:
    table(tmp_path / "b.parquet", prompt=["third"])
    table(tmp_path / "a" / "1.parquet", prompt=["first", "second"])
    assert list(ParquetPrompts(path=str(tmp_path)).build()) == ["first", "second", "third"]


def test_a_dataset_is_a_folder_of_data_files(tmp_path: Path) -> None:
    table(tmp_path / "data" / "train.parquet", caption=CAPTIONS)
    prompts = DatasetPrompts(source=str(tmp_path / "data"), column="caption")
    assert list(prompts.build()) == ["a cat", "a dog", "a cat"]
    part = prompts.model_copy(update={"split": "train[:1]"})
    assert list(part.build()) == ["a cat"]
    testing.check(prompts)


@pytest.mark.parametrize("has_splits", [True, False])
def test_a_dataset_is_what_save_to_disk_wrote(tmp_path: Path, has_splits: bool) -> None:
    saved = datasets.Dataset.from_dict({"prompt": ["a cat", "a dog"]})
    whole = datasets.DatasetDict(train=saved) if has_splits else saved
    whole.save_to_disk(tmp_path / "saved")
    assert list(DatasetPrompts(source=str(tmp_path / "saved")).build()) == ["a cat", "a dog"]


def test_a_split_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_dict({"prompt": ["a cat"]})
    datasets.DatasetDict(train=saved, test=saved).save_to_disk(tmp_path)
    with pytest.raises(UserError) as caught:
        DatasetPrompts(source=str(tmp_path), split="tests").build()
    assert str(caught.value) == (
        f"{tmp_path}: no split 'tests'; did you mean 'test'? splits: train, test"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"promt": ["a"], "id": [1]}, "no column 'prompt'; did you mean 'promt'? columns: promt, "),
        ({"prompt": [1, 2]}, "column 'prompt' should hold prompts, and row 1 has 1"),
        ({"prompt": [" ", None]}, "holds no prompts"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_a_table_without_prompts_gets_a_sentence(
    columns: dict[str, list[Any]], message: str, kind: str, tmp_path: Path
) -> None:
    file = table(tmp_path / "data" / "train.parquet", **columns)
    where = file if kind == "parquet" else str(tmp_path / "data")
    config = ParquetPrompts(path=where) if kind == "parquet" else DatasetPrompts(source=where)
    with pytest.raises(UserError) as caught:
        config.build()
    assert str(caught.value).startswith(f"{where}: {message}")


def test_what_is_no_table_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"torn\.parquet: can't read the prompts: .*[Pp]arquet"):
        ParquetPrompts(path=str(tmp_path / "torn.parquet")).build()
    with pytest.raises(UserError, match=r"^nowhere\.parquet: can't read .*No such file"):
        ParquetPrompts(path="nowhere.parquet").build()
    with pytest.raises(UserError, match=r"^nobody/nothing: can't load the dataset: \S+"):
        DatasetPrompts(source="nobody/nothing").build()


@pytest.mark.parametrize(
    ("package", "config"),
    [("pyarrow", ParquetPrompts(path="x")), ("datasets", DatasetPrompts(source="x"))],
)
def test_a_missing_package_is_told(
    package: str, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        """Finds the package nowhere, before anybody else is asked."""

        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, package)
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    with pytest.raises(UserError) as caught:
        config.build()
    assert str(caught.value) == (
        f"prompts: '{config.name()}' needs {package}, which is not installed: pip install {package}"
    )
