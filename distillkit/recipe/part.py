"""`Part`, a recipe's field whose value is a part that plugins bring.

    class Recipe(Config):
        teacher: Part[TeacherConfig]        # {type: NAME, ...} becomes the class of that name

A field looks its `type` up while it is validated, so a part that a third party registers can be
named in any recipe. (A pydantic union would be closed when `Recipe` is defined.)
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.registry import entry_points as plugins
from distillkit.registry.registry import Origin, Registry, UnknownPartError
from distillkit.remarks import join_problems, make_problem


@dataclass(frozen=True)
class _PartField:
    """Tells pydantic how a field of a recipe becomes the part that its `type` names."""

    def __get_pydantic_core_schema__(
        self, source: type[ComponentConfig], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def validate(value: Any, info: core_schema.ValidationInfo[Any]) -> ComponentConfig:
            return _to_part(source, value, info.context)

        return core_schema.with_info_plain_validator_function(
            validate,
            serialization=core_schema.simple_ser_schema("any"),
            metadata={"socket": source.socket},  # for `distillkit.recipe.json_schema`
        )


@dataclass(frozen=True)
class OneOrMore:
    """For a field that takes one part, a list of them, or nothing, and is always a tuple.

    metrics: Annotated[tuple[MetricsConfig, ...], OneOrMore(MetricsConfig)] = ()
    """

    base: type[ComponentConfig]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def validate(
            value: Any, info: core_schema.ValidationInfo[Any]
        ) -> tuple[ComponentConfig, ...]:
            return _to_parts(self.base, value, info.context)

        return core_schema.with_info_plain_validator_function(
            validate,
            serialization=core_schema.simple_ser_schema("any"),
            metadata={"socket": self.base.socket, "many": True},
        )


T = TypeVar("T", bound=ComponentConfig)
Part = Annotated[T, _PartField()]
"""`Part[TeacherConfig]`: the installed teacher that the recipe's `type` names."""


def _to_part(base: type[ComponentConfig], value: Any, context: Any) -> ComponentConfig:
    """The part that `value` describes. `context["registry"]` replaces the installed plugins."""
    if isinstance(value, base):
        return value
    registry = _registry(context)
    installed = registry.what_is_installed(base.socket)
    if not isinstance(value, Mapping):
        raise join_problems(
            base.socket, make_problem((), _not_a_mapping(base.socket, value, installed))
        )
    if "type" not in value:
        message = f"a {base.socket} needs a `type`; {installed}"
        raise join_problems(base.socket, make_problem((), message))
    name = value["type"]
    if not isinstance(name, str):
        message = f"`type` should be a name, not {name!r}; if it is one, put quotes around it"
        raise join_problems(base.socket, make_problem(("type",), f"{message}; {installed}"))
    try:
        config = registry.get(base.socket, name).config
    except UnknownPartError as error:
        raise join_problems(
            base.socket, make_problem(("type",), str(error), "unknown_part")
        ) from None
    try:
        return config.model_validate(value, context=context)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise join_problems(f"{base.socket} '{name}'", *errors, config=config) from None
    except Exception as error:  # a validator's own mistake: pydantic lets it pass
        message = _validator_failed(error, registry.origin(config))
        problem = make_problem(_failing_field(config, value, context), message)
        raise join_problems(f"{base.socket} '{name}'", problem, config=config) from error


def _validator_failed(error: Exception, origin: Origin | None) -> str:
    if isinstance(error, UserError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a validator of {origin} failed: {type(error).__name__}: {error} "
        f"({frame.filename}:{frame.lineno})"
    )


def _failing_field(
    config: type[ComponentConfig], value: Mapping[str, Any], context: Any
) -> tuple[str, ...]:
    """The field whose validator raises something else than ValueError; () for the whole part's.

    Fields are validated in order, so they are given one more at a time. A field that no config has
    keeps validators of the whole part, which run after those of fields, from running.
    """
    given: dict[str, Any] = {"type": value["type"], "no such field": None}
    for field in (None, *config.model_fields):
        if field is not None and field in value:
            given[field] = value[field]
        try:
            config.model_validate(given, context=context)
        except ValidationError:
            continue
        except Exception:
            return () if field is None else (field,)
    return ()


def _to_parts(base: type[ComponentConfig], value: Any, context: Any) -> tuple[ComponentConfig, ...]:
    """The parts that `value` describes: none, one, or a list."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        return (_to_part(base, value, context),)
    parts, errors = [], []
    for index, item in enumerate(value):
        try:
            parts.append(_to_part(base, item, context))
        except PydanticCustomError as error:
            wrong = {"type": "part", "loc": (index,), "msg": error.message()}
            errors.append(wrong | {"ctx": error.context})
    if errors:
        raise join_problems(base.socket, *errors)
    return tuple(parts)


def _registry(context: Any) -> Registry:
    if context and "registry" in context:
        registry: Registry = context["registry"]
        return registry
    return plugins.installed().registry


def _not_a_mapping(socket: str, value: Any, installed: str) -> str:
    return f"a {socket} is a mapping like {{type: NAME}}, not {value!r}; {installed}"
