"""What is wrong with a pipeline folder, as far as its files say before their weights are read.

Neither torch nor diffusers is imported: `distillkit check` reads this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit_diffusers.io.model_configs import read_json

SDXL_PIPELINE = "StableDiffusionXLPipeline"
VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tokenizer.model",),
)
"""The files of which a tokenizer needs one set."""
OTHER_SCHEDULES = ("EDM", "FlowMatch", "Cosine")
"""How diffusers' schedulers begin that have no betas."""
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?"
    r"\.(safetensors|bin)"
)


def flaws_of(folder: Path) -> Iterator[str]:
    """What is wrong with the folder of an SDXL pipeline; nothing where there is no folder.

    Sentences without a full stop, the first of which is the cause.
    """
    if not folder.is_dir():
        return
    index = folder / "model_index.json"
    if not index.is_file():
        yield (
            f"{folder} is not a diffusers pipeline folder: it has no model_index.json. For a "
            "single-file checkpoint give the path of the file itself"
        )
        return
    found = read_json(index)
    if not found:
        yield f"{index} is damaged: it is no JSON object with a pipeline's parts; download it again"
        return
    if (name := found.get("_class_name")) != SDXL_PIPELINE:
        yield f"{folder} is a {name}, and a {SDXL_PIPELINE} is needed"
        return
    yield from without_vocabulary(folder, ("tokenizer", "tokenizer_2"))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json").get("_class_name")
    if str(scheduler).startswith(OTHER_SCHEDULES):
        yield f"{folder}'s {without_betas(scheduler)}"


def without_betas(scheduler: Any) -> str:
    """The sentence on a scheduler of another class, by the name of that."""
    return (
        f"scheduler is {scheduler}, and a teacher of the sdxl family needs one with betas, as "
        "EulerDiscreteScheduler: a model that was trained on another noise schedule (EDM, a flow) "
        "can't be taught from; where it was not, put its own config into scheduler/"
    )


def without_vocabulary(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Of the tokenizers with these names, those that would read every prompt alike. transformers
    makes a tokenizer of two tokens of a folder without a vocabulary."""
    for name in names:
        there = [[(folder / name / file).is_file() for file in each] for each in VOCABULARIES]
        if not any(map(all, there)):
            yield (
                f"{folder} is incomplete: {name}/ has no vocabulary; copy tokenizer.json, or "
                "vocab.json and merges.txt, from the model that it was made from"
            )


def short_vocabulary(parts: Mapping[str, Any], folder: Path) -> str | None:
    """What is wrong with a loaded pipeline's tokenizers, if anything: one has less than half of the
    tokens that its text encoder knows. A few less are usual.

    `parts`: the pipeline's components by name.
    """
    for name, tokenizer in parts.items():
        encoder = parts.get(name.replace("tokenizer", "text_encoder"))
        if not name.startswith("tokenizer") or tokenizer is None or encoder is None:
            continue
        known = getattr(encoder.config, "vocab_size", 0)
        if 2 * len(tokenizer) < known:
            return (
                f"{folder} is incomplete: {name}/ has {len(tokenizer)} tokens, and the text encoder"
                f" knows {known}; copy {name}/ from the model that it was made from"
            )
    return None


def missing_variant(folder: Path, variant: str | None) -> str | None:
    """What is wrong with the variant of the folder's weight files that is asked for, if anything.
    None asks for the files without one."""
    if not folder.is_dir():
        return None
    if variant is not None:
        said = f"{folder} has no files of the variant '{variant}'; leave `variant` out"
        return None if any(folder.rglob(f"*.{variant}.*")) else said
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        names = (WEIGHTS.fullmatch(file.name) for file in part.iterdir())
        variants = {name["variant"] for name in names if name}
        if variants and None not in variants:
            [only, *_] = sorted(variants)
            return f"{folder} has its weights as the variant '{only}' alone; set `variant: {only}`"
    return None


def why_not_loaded(folder: Path, files: Sequence[str], reason: str) -> str:
    """Of a folder that a library could not load: which files are absent or damaged, or else the
    library's own reason.

    `files`: what the pipeline needs. Of its tokenizers nothing is said, see `without_vocabulary`;
    weights may be there in any number format and number of files.
    """
    others = [file for file in files if not file.startswith("tokenizer")]
    absent = [file for file in others if not any(_forms(folder / file))]
    if absent:
        return (
            f"{folder} is incomplete: it lacks {', '.join(absent)}; download it again, or copy what"
            " is missing from the model that it was made from"
        )
    damaged = [path for path in sorted(folder.glob("*/*.json")) if not _is_json(path)]
    if damaged:
        names = ", ".join(str(path.relative_to(folder)) for path in damaged)
        return f"{folder} is damaged: {names} can't be read as JSON; download it again"
    return f"{folder} can't be loaded: {reason.rstrip('.')}"


def _forms(file: Path) -> Iterator[Path]:
    """The file, or of weights what else holds them."""
    if WEIGHTS.fullmatch(file.name) is None:
        return iter([file] if file.is_file() else [])
    found = file.parent.iterdir() if file.parent.is_dir() else iter(())
    return (path for path in found if WEIGHTS.fullmatch(path.name))


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
