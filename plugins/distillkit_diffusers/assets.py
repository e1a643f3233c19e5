"""Files that a recipe names: found here, fetched from the hub, or asked for in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from distillkit.errors import UserError

TOKENIZER_FILES = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")


@dataclass(frozen=True)
class Asset:
    """A file or folder that a field of the recipe names."""

    field: str
    """Where the recipe names it: `teacher.lora`."""
    spec: str
    """A path, a hub id (owner/repo), or a file on the hub (owner/repo/file)."""
    kind: Literal["pipeline", "vae", "file"]
    variant: str | None = None

    @property
    def repo(self) -> str:
        """The hub's repository, if `spec` names one."""
        return "/".join(self.spec.split("/")[:2])

    @property
    def files(self) -> list[str]:
        """What is needed of the repository."""
        if self.kind == "file":
            return ["/".join(self.spec.split("/")[2:])]
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
        """Whether `spec` can name something on the hub at all."""
        parts = self.spec.split("/")
        named = all(parts) and not self.spec.startswith((".", "~"))
        return named and (len(parts) > 2 if self.kind == "file" else len(parts) == 2)


def locate(assets: Sequence[Asset]) -> list[Path]:
    """The assets' paths on this machine, fetched where that is possible.

    Raises one `UserError` that lists everything that is missing and where to put it.
    """
    paths: list[Path] = []
    missing: list[tuple[Asset, str]] = []
    reachable: bool | None = None
    for asset in assets:
        path = Path(asset.spec).expanduser()
        if path.exists():
            paths.append(path)
        elif not asset.on_hub:
            missing.append((asset, "there is no such file or folder"))
        else:
            reachable = hub_answers() if reachable is None else reachable
            try:
                paths.append(_fetch(asset, reachable))
            except Exception as error:  # whatever the hub's client raises, the user needs the file
                why = (
                    f"the hub says: {first_line(error)}" if reachable else "the hub does not answer"
                )
                missing.append((asset, why))
    if missing:
        raise UserError(_what_to_fetch(missing))
    return paths


def hub_answers() -> bool:
    """Whether the hub can be reached; one short try, where the hub's client would retry long."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5):
            return True
    except HTTPError:
        return True  # an answer all the same
    except OSError:
        return False


def _fetch(asset: Asset, reachable: bool) -> Path:
    """From the hub, or from the hub's cache where the hub cannot be reached."""
    from diffusers import StableDiffusionXLPipeline
    from huggingface_hub import hf_hub_download, snapshot_download

    if asset.kind == "file":
        name = asset.files[0]
        return Path(hf_hub_download(asset.repo, name, local_files_only=not reachable))
    if asset.kind == "pipeline" and reachable:
        return Path(StableDiffusionXLPipeline.download(asset.spec, variant=asset.variant))
    folder = Path(
        snapshot_download(asset.repo, allow_patterns=asset.files, local_files_only=not reachable)
    )
    if not (folder / asset.files[0]).exists():
        raise FileNotFoundError(f"no {asset.files[0]} in {asset.repo}")
    return folder


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for a sentence."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _what_to_fetch(missing: Sequence[tuple[Asset, str]]) -> str:
    lines = [
        f"{len(missing)} of the recipe's files cannot be had. Fetch them where there is a network, "
        "put them where the line says, and run again with the option beside it:"
    ]
    for asset, why in missing:
        lines.append(f"  {asset.field}: '{asset.spec}' is not on this machine, and {why}")
        if asset.on_hub:
            folder = f"models/{asset.repo.split('/')[1]}"
            goal = f"{folder}/{asset.files[0]}" if asset.kind == "file" else folder
            lines.append(
                f"    hf download {asset.repo} {' '.join(asset.files)} --local-dir {folder}"
            )
            lines.append(f"    --set {asset.field}={goal}")
        else:
            what = (
                "hub id (owner/repo)"
                if asset.kind != "file"
                else "file on the hub (owner/repo/file)"
            )
            lines.append(f"    give {asset.field} a path that exists, or a {what}")
    return "\n".join(lines)
