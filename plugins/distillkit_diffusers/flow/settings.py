"""What a published folder says of its student beside the pipeline. Needs no torch.

It is in a file of its own: diffusers warns of entries in its configs that it does not know.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distillkit.configs import LEVELS, Levels
from distillkit.errors import UserError

FILE = "distillkit.json"


class PublishedSettings(BaseModel):
    """What a student is drawn with; a folder that says nothing leaves it to the family."""

    model_config = ConfigDict(frozen=True)
    levels: Levels = Field(LEVELS, min_length=4)
    """Noise levels of its roll-outs, as `StudentConfig.levels`."""
    max_tokens: int | None = Field(None, ge=1, le=512)
    """Tokens of the text encoder; None takes the family's own number."""


def write_settings(folder: Path, settings: PublishedSettings) -> None:
    """Write the file into a folder."""
    (folder / FILE).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> PublishedSettings:
    """The folder's, or those that say nothing. Raises `UserError` for a file that can't be read."""
    file = folder / FILE
    if not file.is_file():
        return PublishedSettings()
    try:
        return PublishedSettings.model_validate_json(file.read_bytes())
    except OSError as error:
        why = str(error)
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join([*map(str, first["loc"]), first["msg"]])
    raise UserError(f"{file} can't be read, and says how the student is drawn: {why}")
