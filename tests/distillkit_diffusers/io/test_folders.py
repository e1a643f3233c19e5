"""Damaged and incomplete pipeline folders: `check` and the loader say the same sentence, and what
to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit.recipe.preflight import preflight
from distillkit_diffusers.io.folders import missing_variant, short_vocabulary, without_vocabulary
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit_diffusers.tiny import RECIPE, UNET_FILE

Damage = Callable[[Path], Any]


def remove(*names: str) -> Damage:
    """Files and folders."""

    def damage(folder: Path) -> None:
        for path in (folder / name for name in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def write(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def only_fp16(folder: Path) -> None:
    for file in [*folder.rglob("*.safetensors")]:
        file.rename(file.with_suffix(".fp16.safetensors"))


def scheduler(name: str) -> Damage:
    def damage(folder: Path) -> None:
        said = {"_class_name": name, "num_train_timesteps": 1000}
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(said))
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", name]
        (folder / "model_index.json").write_text(json.dumps(index))

    return damage


VOCABULARY = "model is incomplete: {}/ has no vocabulary; copy tokenizer.json, or vocab.json and"
SEEN_BY_CHECK = {
    "no vocabulary": (remove("tokenizer/tokenizer.json"), VOCABULARY.format("tokenizer")),
    "no tokenizer": (remove("tokenizer", "tokenizer_2"), VOCABULARY.format("tokenizer")),
    "no second": (remove("tokenizer_2"), VOCABULARY.format("tokenizer_2")),
    "cut index": (write("model_index.json", '{"_class_name": "Sta'), "model_index.json is damaged"),
    "list index": (write("model_index.json", "[]"), "model_index.json is damaged: it is no JSON"),
    "no index": (remove("model_index.json"), "it has no model_index.json. For a single-file"),
    "variant": (only_fp16, "has its weights as the variant 'fp16' alone; set `variant: fp16`"),
    "edm": (
        scheduler("EDMEulerScheduler"),
        "model's scheduler is EDMEulerScheduler, and a teacher",
    ),
    "flow": (
        scheduler("FlowMatchEulerDiscreteScheduler"),
        "needs one with betas, as EulerDiscrete",
    ),
}


@pytest.fixture
def folder(tiny_sdxl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))


@pytest.mark.parametrize(("damage", "sentence"), SEEN_BY_CHECK.values(), ids=SEEN_BY_CHECK)
def test_check_and_the_loader_say_what_is_wrong(
    folder: Path, tmp_path: Path, damage: Damage, sentence: str
) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text(RECIPE.format(model=folder))
    preflight(load_recipe(recipe, ()))
    damage(folder)
    said = []
    for use in (lambda: preflight(load_recipe(recipe, ())), lambda: load_teacher(folder)):
        with pytest.raises(UserError) as error:
            use()
        said.append(str(error.value))
        assert sentence in said[-1]
    assert said[1].startswith(("teacher.model: ", "teacher.variant: "))
    assert said[1] in said[0]


SEEN_BY_THE_LOADER = {
    "no unet": (remove(UNET_FILE), f"is incomplete: it lacks {UNET_FILE}; download it again, or "),
    "no vae": (remove("vae"), "it lacks vae/config.json, vae/diffusion_pytorch_model.safetensors;"),
    "tokenizer": (
        write("tokenizer/tokenizer.json", "{"),
        "damaged: tokenizer/tokenizer.json can't",
    ),
    "unet's config": (write("unet/config.json", "{"), "is damaged: unet/config.json can't be read"),
    "pointer": (
        write(UNET_FILE, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"),
        "model can't be loaded: You seem to have cloned a repository without having git-lfs",
    ),
}


@pytest.mark.parametrize(
    ("damage", "sentence"), SEEN_BY_THE_LOADER.values(), ids=SEEN_BY_THE_LOADER
)
def test_the_loader_names_what_is_absent_or_damaged(
    folder: Path, damage: Damage, sentence: str
) -> None:
    damage(folder)
    with pytest.raises(UserError) as error:
        load_teacher(folder)
    said = str(error.value)
    assert said.startswith(f"teacher.model: {folder} ")
    assert sentence in said
    assert ".." not in said
    assert not said.endswith(".")
    assert "\n" not in said


def test_the_folder_of_a_checkpoints_configs_is_looked_at_too(folder: Path, tmp_path: Path) -> None:
    remove("tokenizer_2/tokenizer.json")(folder)
    recipe, checkpoint = tmp_path / "my.yaml", tmp_path / "mine.safetensors"
    checkpoint.touch()
    recipe.write_text(RECIPE.format(model=f"{checkpoint}, config: {folder}"))
    with pytest.raises(UserError, match=r"teacher\.config: .*tokenizer_2/ has no vocabulary"):
        preflight(load_recipe(recipe, ()))


@pytest.mark.parametrize(
    ("files", "flawed"),
    [
        (["vocab.json", "merges.txt"], False),
        (["vocab.json"], True),
        (["tokenizer.json"], False),
        (["spiece.model"], False),
        (["tokenizer.model"], False),
        (["tokenizer_config.json"], True),
    ],
)
def test_the_forms_of_a_vocabulary(tmp_path: Path, files: list[str], flawed: bool) -> None:
    (tmp_path / "tokenizer").mkdir()
    for file in files:
        (tmp_path / "tokenizer" / file).touch()
    assert len([*without_vocabulary(tmp_path, ["tokenizer"])]) == flawed


@pytest.mark.parametrize(
    ("tokens", "known", "flawed"),
    [(2, 49408, True), (32100, 32128, False), (151669, 151936, False)],
)
def test_a_vocabulary_far_shorter_than_the_text_encoders(
    tokens: int, known: int, flawed: bool
) -> None:
    """T5's and Qwen's tokenizers have a few tokens less than the text encoder's table."""
    encoder = SimpleNamespace(config=SimpleNamespace(vocab_size=known))
    parts = {"tokenizer_2": range(tokens), "text_encoder_2": encoder, "tokenizer": None}
    said = short_vocabulary(parts, Path("mine"))
    assert (said is not None) == flawed
    if flawed:
        assert said == (
            "mine is incomplete: tokenizer_2/ has 2 tokens, and the text encoder knows 49408; copy "
            "tokenizer_2/ from the model that it was made from"
        )


@pytest.mark.parametrize(
    ("files", "flawed"),
    [
        (["diffusion_pytorch_model-00001-of-00002.safetensors"], False),
        (["diffusion_pytorch_model.fp16-00001-of-00002.safetensors"], True),
        (["diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin"], False),
        (["model.fp16.safetensors", "openvino_model.bin"], True),
        (["config.json"], False),
    ],
)
def test_weights_that_are_there_as_a_variant_alone(
    tmp_path: Path, files: list[str], flawed: bool
) -> None:
    (tmp_path / "unet").mkdir()
    for file in files:
        (tmp_path / "unet" / file).touch()
    assert (missing_variant(tmp_path, None) is not None) == flawed
