"""A part that a command names, with its fields set by `field=value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillkit.configs import ComponentConfig


def configure(
    socket: str,
    name: str,
    settings: Sequence[str],
    flag: str,
    given: Mapping[str, Any] | None = None,
) -> ComponentConfig:
    """The installed part `name` with its fields set by `field=value`, values in YAML.

    `flag`: how errors call the choice of the part. `given`: values of fields that the command has
    from elsewhere, which `settings` may change. Raises one `UserError` with everything that is
    wrong.
    """
    from pydantic import ValidationError

    from distillkit.errors import UserError, did_you_mean
    from distillkit.recipe.overrides import Draft
    from distillkit.recipe.problems import problems
    from distillkit.recipe.yaml12 import parse
    from distillkit.registry.entry_points import installed
    from distillkit.registry.registry import UnknownPartError

    registry = installed().registry
    try:
        config = registry.get(socket, name).config
    except UnknownPartError as error:
        raise UserError(f"{flag}: {error}") from None
    fields = [field for field in config.model_fields if field != "type"]
    known = f"fields of {socket} '{name}': {', '.join(fields) or 'none'}"
    # As a recipe with `--set` flags and no file: of the same syntax, with errors of the same form.
    draft, wrong = Draft(Path(), parse("{}")), []
    draft.value.update(given or {})
    draft.marks[()] = flag
    for setting in settings:
        key, equals, _ = setting.partition("=")
        field = key.strip().partition(".")[0]
        if not equals:
            wrong.append(f"--set {setting}: write --set field=value; {known}")
        elif field not in fields:
            wrong.append(
                f"--set {setting}: no field '{field}';{did_you_mean(field, fields)} {known}"
            )
        else:
            draft.override(setting)
    try:
        made = config.model_validate(draft.value)
    except ValidationError as error:
        draft.problems += problems(error, config, registry)
    if wrong := [*wrong, *draft.report()]:
        raise UserError("\n".join(wrong))
    return made
