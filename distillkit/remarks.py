"""What is told of parts before they are built: remarks, problems, sizes, what levels hear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import BaseModel
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
