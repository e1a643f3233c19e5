"""Files that a recipe names: found on disk, or downloaded from the hub.

What can't be found or downloaded is listed in one error, with the commands that fetch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distillkit.errors import UserError
from distillkit.exchange import PREFIX, hub_answers, packaged_path

TOKENIZER_FILES = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
_ONE_ENCODER = ("scheduler", "transformer", "vae", "text_encoder", "tokenizer")
FOLDERS = {
    "StableDiffusion3Pipeline": (
        *("scheduler", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
    ),
    "ZImagePipeline": _ONE_ENCODER,
    "Flux2KleinPipeline": _ONE_ENCODER,
}
"""Of pipelines whose weights may be in several files: the folders that are needed."""


@dataclass(frozen=True)
class Asset:
    """A file or folder that a field of the recipe, or of an exporter, names."""

    field: str
    """The field, as `--set` takes it: `teacher.lora`."""
    spec: str
    """A path, `package:NAME/inside/it`, a hub id (owner/repo), or a file on the hub
    (owner/repo/file)."""
    kind: Literal["pipeline", "vae", "file"]
    variant: str | None = None
    pipeline: str = "StableDiffusionXLPipeline"
    """Of a pipeline: its class in diffusers."""

    @property
    def repo(self) -> str:
        """The hub's repository, if `spec` names one."""
        return "/".join(self.spec.split("/")[:2])

    @property
    def files(self) -> list[str]:
        """The files of the repository that are needed."""
        if self.kind == "file":
            return ["/".join(self.spec.split("/")[2:])]
        if self.pipeline in FOLDERS:
            return ["model_index.json", *(f"{name}/*" for name in FOLDERS[self.pipeline])]
        tail = f".{self.variant}.safetensors" if self.variant else ".safetensors"
        network = ["config.json", f"diffusion_pytorch_model{tail}"]
        if self.kind == "vae":
            return network
        encoder = ["config.json", f"model{tail}"]
        parts = {
            "scheduler": ["scheduler_config.json"],
            "text_encoder": encoder,
            "text_encoder_2": encoder,
            "tokenizer": TOKENIZER_FILES,
            "tokenizer_2": TOKENIZER_FILES,
            "unet": network,
            "vae": network,
        }
        names = [f"{folder}/{name}" for folder, names in parts.items() for name in names]
        return ["model_index.json", *names]

    @property
    def on_hub(self) -> bool:
        """Whether `spec` has the form of a hub id, or of a file on the hub."""
        parts = self.spec.split("/")
        named = all(parts) and not self.spec.startswith((".", "~", PREFIX))
        return named and (len(parts) > 2 if self.kind == "file" else len(parts) == 2)


def is_checkpoint(model: str | None) -> bool:
    """Whether a model is named as one file, by its path or on the hub."""
    return model is not None and model.endswith((".safetensors", ".ckpt"))


def teacher_assets(
    model: str,
    variant: str | None = None,
    *,
    unet: str | None = None,
    lora: str | None = None,
    vae: str | None = None,
    config: str | None = None,
) -> list[Asset]:
    """What a teacher is loaded from; arguments as in `SDXLTeacherConfig`."""
    kind: Literal["file", "pipeline"] = "file" if is_checkpoint(model) else "pipeline"
    assets = [Asset("teacher.model", model, kind, variant)]
    assets += [Asset("teacher.config", config, "pipeline")] if config else []
    assets += [Asset("teacher.vae", vae, "vae")] if vae else []
    assets += [Asset("teacher.unet", unet, "file")] if unet else []
    assets += [Asset("teacher.lora", lora, "file")] if lora else []
    return assets


def locate(assets: Sequence[Asset]) -> list[Path]:
    """The assets' paths on this machine, downloaded where necessary and possible.

    Raises one `UserError` that lists everything that is missing and where to put it.
    """
    paths: list[Path] = []
    missing: list[tuple[Asset, str]] = []
    reachable: bool | None = None
    for asset in assets:
        path = packaged_path(asset.spec, asset.field)
        if path.exists():
            paths.append(path)
        elif not asset.on_hub:
            missing.append((asset, "there is no such file or folder"))
        else:
            reachable = hub_answers() if reachable is None else reachable
            try:
                paths.append(_download(asset, reachable))
            except Exception as error:  # whatever the hub's client raises, the user needs the file
                answer = f"the hub reports: {first_line(error)}"
                missing.append((asset, answer if reachable else "the hub does not answer"))
    if missing:
        raise UserError(_list_missing(missing))
    return paths


def _download(asset: Asset, reachable: bool) -> Path:
    """From the hub, or from the hub's cache where the hub cannot be reached."""
    import diffusers
    from huggingface_hub import hf_hub_download, snapshot_download

    if asset.kind == "file":
        name = asset.files[0]
        return Path(hf_hub_download(asset.repo, name, local_files_only=not reachable))
    if asset.kind == "pipeline" and reachable:
        pipeline = getattr(diffusers, asset.pipeline)
        return Path(pipeline.download(asset.spec, variant=asset.variant))
    folder = Path(
        snapshot_download(asset.repo, allow_patterns=asset.files, local_files_only=not reachable)
    )
    if not (folder / asset.files[0]).exists():
        raise FileNotFoundError(f"no {asset.files[0]} in {asset.repo}")
    return folder


def first_line(error: Exception) -> str:
    """The first line of a library's error message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _list_missing(missing: Sequence[tuple[Asset, str]]) -> str:
    count = f"{len(missing)} file{'s are' if len(missing) > 1 else ' is'} missing"
    lines = [
        f"{count}. Download what is listed on a machine with a network, copy it to the path in the "
        "--set option below it, and run again with that option:"
    ]
    for asset, reason in missing:
        lines.append(f"  {asset.field}: '{asset.spec}' is not on this machine, and {reason}")
        if asset.on_hub:
            folder = f"models/{asset.repo.split('/')[1]}"
            path = f"{folder}/{asset.files[0]}" if asset.kind == "file" else folder
            lines.append(f"    hf download {asset.repo} {_wanted(asset)} --local-dir {folder}")
            lines.append(f"    --set {asset.field}={path}")
        else:
            lines.append(f"    {not_there(asset)}")
        if asset.variant:
            owner = asset.field.partition(".")[0]
            lines.append(f"    or leave {owner}.variant out, if there are no such files")
    return "\n".join(lines)


def _wanted(asset: Asset) -> str:
    """The files as `hf download` takes them."""
    if not any("*" in name for name in asset.files):
        return " ".join(asset.files)
    return "--include " + " ".join(f"'{name}'" for name in asset.files)


def not_there(asset: Asset) -> str:
    """What to do about a path that does not exist."""
    hub_form = "hub id (owner/repo)"
    if asset.kind == "file":
        hub_form = "file on the hub (owner/repo/file)"
    return f"set {asset.field} to a path that exists, or to a {hub_form}"
