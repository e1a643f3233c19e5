"""What is told of parts before they are built: remarks, problems, sizes, what levels hear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

MOST_HEADS, MOST_PARAMETERS = 1_000_000, 20_000_000_000
"""Of a pool, beyond which no machine holds it: 80 GB of weights alone."""


@dataclass(frozen=True)
class Remark:
    """What `ComponentConfig.preflight` has found."""

    message: str
    """What is wrong, or worth knowing, in a sentence without a full stop."""
    field: str = ""
    """The part's field that it is about; empty for the part as a whole."""
    is_error: bool = True
    """Whether the recipe is refused; otherwise it is a note to the user."""


def without_effect(config: BaseModel, why: str, *fields: str) -> Iterator[Remark]:
    """A note for each of these fields that is not at its default, and changes nothing.

    `why`: such as "without `cache`", which the sentence ends with.
    """
    for field in fields:
        default = type(config).model_fields[field].get_default(call_default_factory=True)
        if getattr(config, field) != default:
            yield Remark(f"has no effect {why}", field, is_error=False)


def without_pictures(config: Any, recipe: Any) -> Iterator[Remark]:
    """For the preflight of prompts that have no pictures: a recipe that asks for them."""
    if recipe.samples.real == "pictures":
        yield Remark(
            f"`samples.real: pictures` asks for the prompts' own pictures, and "
            f"'{config.type}' has none; `image-folder` has"
        )


def falling(levels: tuple[float, ...]) -> tuple[float, ...]:
    """The noise levels unchanged, if each is below the one before."""
    sound = sorted(set(levels), reverse=True)
    if list(levels) != sound:
        raise ValueError(f"should fall, from noise to picture, like {sound}")
    return levels


def grid(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Falling levels of a roll-out; 499.0 is the level 499, and no fraction between two."""
    return tuple(int(t) if t == int(t) else t for t in falling(levels))


def rising(counts: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers unchanged, if each is above the one before."""
    sound = sorted(set(counts))
    if list(counts) != sound:
        raise ValueError(f"should rise, like {sound}")
    return counts


class PoolSize(NamedTuple):
    """How large a pool is, all heads together."""

    heads: int
    parameters: int


class LevelInputs(NamedTuple):
    """What the map of a backbone's level depends on, beside x_t."""

    prompt: str = ""
    """What it hears of the prompt, such as "the pooled prompt"; empty for nothing, which makes a
    critic on the level unconditional whatever its view."""
    timestep: bool = True
    """Whether it hears t*."""

    def __str__(self) -> str:
        if not self.prompt:
            return "t* but not the prompt" if self.timestep else "neither prompt nor t*"
        return self.prompt if self.timestep else f"{self.prompt} but not t*"


def describe_levels(inputs: Sequence[LevelInputs]) -> str:
    """`level 0 hears neither prompt nor t*; levels 1 to 9 hear the prompt's words`."""
    parts = []
    for heard, group in groupby(range(len(inputs)), key=lambda level: inputs[level]):
        levels = list(group)
        first, last = levels[0], levels[-1]
        if first == last:
            parts.append(f"level {first} hears {heard}")
        else:
            parts.append(f"levels {first} to {last} hear {heard}")
    return "; ".join(parts)


class NumbersAreNumbers(BaseModel):
    """A model that takes true and false for no numbers, where pydantic reads 1 and 0."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_bools(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        _refuse_bools(value, _options(field.annotation))
        return value


def _refuse_bools(value: Any, options: Sequence[Any], *loc: str) -> None:
    """Raise where `value`, which has one of these types, is or holds true or false in the place of
    a number. `loc`: its place in the field."""
    if isinstance(value, bool) and bool not in options and {int, float} & set(options):
        raise misfit(f"should be a number, not {str(value).lower()}", *loc)
    inner = [(get_origin(option), get_args(option)) for option in options]
    if isinstance(value, list | tuple):
        kinds = [args for origin, args in inner if origin in (list, tuple) and args]
        for n, item in enumerate(value):
            # The last of `tuple[int, ...]` and of `list[int]` is that of all that follow.
            own = [_nth([arg for arg in args if arg is not ...], n) for args in kinds]
            _refuse_bools(item, [option for k in own for option in _options(k)], *loc, str(n))
    elif isinstance(value, dict):
        for keys, values in (args for origin, args in inner if origin is dict):
            for key, item in value.items():
                _refuse_bools(key, _options(keys), *loc, str(key))
                _refuse_bools(item, _options(values), *loc, str(key))


def _nth(kinds: Sequence[Any], n: int) -> Any:
    return kinds[min(n, len(kinds) - 1)]


def _options(kind: Any) -> list[Any]:
    """The types of a union, without what they are annotated with."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [option for each in get_args(kind) for option in _options(each)]
    return [kind]


def misfit(message: str, *loc: str) -> Exception:
    """For validators of whole models: a ValueError whose problem is the field at `loc`.

    raise misfit("needs a `pool` whose heads it could work on", "refresh")
    """
    return join_problems("misfit", make_problem(loc, message))


def make_problem(loc: tuple[str, ...], message: str, kind: str = "part") -> dict[str, Any]:
    """One of pydantic's problems, made by us."""
    return {"type": kind, "loc": loc, "msg": message}


def join_problems(what: str, *errors: Any, config: type[BaseModel] | None = None) -> Exception:
    """One error for pydantic that keeps all inner ones, with their places, in its context.

    pydantic joins no ValidationErrors of nested calls; `recipe.problems` takes these apart again,
    and finds the fields that there are in `config`.
    """
    lines = [": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"]))) for e in errors]
    return PydanticCustomError(
        "part",
        "{what}: {summary}",
        {"what": what, "summary": "; ".join(lines), "errors": errors, "config": config},
    )
