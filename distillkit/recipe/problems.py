"""What pydantic found wrong -> sentences, each with the path of the field that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distillkit.configs import ComponentConfig
from distillkit.errors import did_you_mean
from distillkit.recipe.yaml12 import Path
from distillkit.registry.registry import Registry


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    path: Path
    message: str
    unknown_part: bool = False


def problems(
    error: ValidationError, model: type[BaseModel], registry: Registry
) -> Iterable[Problem]:
    """Every problem of a recipe, those inside its parts included."""
    return _flatten(error.errors(include_url=False), model, (), registry)


def _flatten(
    errors: Iterable[Any], model: type[BaseModel] | None, prefix: Path, registry: Registry
) -> Iterable[Problem]:
    for error in errors:
        loc = error["loc"]
        context = error.get("ctx", {})
        # "[key]" is pydantic's mark for "the key, not its value".
        path = (*prefix, *(str(part) for part in loc if part != "[key]"))
        if error["type"] == "part" and "errors" in context:
            yield from _flatten(context["errors"], context["config"], path, registry)
        else:
            sentence = _sentence(error, model, loc, registry)
            yield Problem(path, sentence, error["type"] == "unknown_part")


def _sentence(
    error: Any, model: type[BaseModel] | None, loc: tuple[Any, ...], registry: Registry
) -> str:
    """What was wrong, what was meant, what there is."""
    kind, message = error["type"], error["msg"]
    if kind in ("part", "unknown_part"):
        return str(message)
    if kind in ("extra_forbidden", "invalid_key"):
        owner = _model(model, loc[:-1])
        fields = owner.model_fields if owner else {}
        guess = did_you_mean(str(loc[-1]), fields)
        return f"unknown field;{guess} fields: {', '.join(fields) or 'none'}"
    if kind == "missing":
        meant = _meaning(model, loc)
        owner = _model(model, loc)
        if owner and issubclass(owner, ComponentConfig):
            meant += f"; {registry.what_is_installed(owner.socket)}"
        return f"missing: {meant}" if meant else "missing"
    if kind in ("value_error", "assertion_error"):
        return str(message).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    got = f"; got {_short(error['input'])}"
    if kind in ("model_type", "model_attributes_type"):
        owner = _model(model, loc)
        fields = owner.model_fields if owner else {}
        return f"should be a mapping of fields{got}; fields: {', '.join(fields) or 'none'}"
    meant = _meaning(model, loc)
    return f"{message}{got}" + (f" ({meant})" if meant else "")


def _meaning(model: type[BaseModel] | None, loc: tuple[Any, ...]) -> str:
    """Of the field that `loc` ends in, or that holds the list or mapping in which it ends."""
    for end in range(len(loc), 0, -1):
        owner = _model(model, loc[: end - 1])
        if owner:
            field = owner.model_fields.get(str(loc[end - 1]))
            text = (field and field.description) or ""
            return " ".join(text.split()).removesuffix(".")
    return ""


def _model(model: type[BaseModel] | None, loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model whose instance stands at `loc`, if one can."""
    kind: Any = model
    for part in loc:
        kind = _inner(kind, part)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _inner(kind: Any, part: str | int) -> Any:
    """The type of the value under `part` of a value of type `kind`; None where it is not known."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return _bare(field.annotation) if field else None
    origin, args = get_origin(kind), get_args(kind)
    if not isinstance(origin, type) or not args:
        return None
    return _bare(args[-1] if issubclass(origin, Mapping) else args[0])


def _bare(kind: Any) -> Any:
    """`X` of `Annotated[X, ...]` and of `X | None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        return _bare(options[0]) if len(options) == 1 else None
    return kind


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
