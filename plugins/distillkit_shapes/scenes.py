"""Scenes and their captions: a closed grammar in which caption and scene determine each other.

    a red striped ring at the left on a sand background
    three blue squares on a night background
    a green star above a yellow striped circle on a sky background

Legend: N scenes, A = 9 attributes (see ATTRIBUTES); codes_NA is int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

SHAPES = ("circle", "square", "triangle", "ring", "star", "cross")
PLURALS = ("circles", "squares", "triangles", "rings", "stars", "crosses")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
TEXTURES = ("solid", "striped")
BACKGROUNDS = ("sand", "sky", "stone", "night")
KINDS = ("one", "two", "three", "pair")
PLACES = ("centre", "left", "right", "top", "bottom", "left of", "above", "unsaid")
KIND_SHARES = (0.74, 0.14, 0.06, 0.06)
"""Probability of each of KINDS in `sample_scenes`."""

ATTRIBUTES = (
    "kind", "place", "background", "shape", "colour", "texture", "shape2", "colour2", "texture2"
)  # fmt: skip
SIZES = (4, 8, 4, 6, 6, 2, 7, 7, 3)
"""Number of values of each attribute; a second object's last value means that there is none."""
OBJECTS = (1, 2, 3, 2)
"""Number of objects in a picture of each of KINDS."""

_SIDES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class Thing:
    """One kind of object: a shape, a colour and a texture, each a word of the tables above."""

    shape: str
    colour: str
    texture: str = "solid"

    def words(self, plural: bool = False) -> str:
        """The thing as it stands in a caption, without its article: "red striped rings"."""
        noun = PLURALS[SHAPES.index(self.shape)] if plural else self.shape
        return " ".join([self.colour, *(["striped"] if self.texture == "striped" else []), noun])


@dataclass(frozen=True)
class Scene:
    """What a caption determines of a picture.

    `kind` is one of KINDS, `place` one of PLACES: where a single thing stands, how a pair's first
    thing stands to its second, "unsaid" for two or three equal things.
    """

    kind: str
    background: str
    first: Thing
    second: Thing | None = None
    place: str = "unsaid"

    def codes(self) -> list[int]:
        """The scene as A = 9 integers in the order of ATTRIBUTES."""
        row = [KINDS.index(self.kind), PLACES.index(self.place), BACKGROUNDS.index(self.background)]
        row += _thing_codes(self.first)
        return row + (_thing_codes(self.second) if self.second else [s - 1 for s in SIZES[6:]])

    @staticmethod
    def from_codes(row: list[int]) -> Scene:
        """The inverse of `codes`."""
        pair = KINDS[row[0]] == "pair"
        return Scene(
            KINDS[row[0]],
            BACKGROUNDS[row[2]],
            _thing(row[3:6]),
            _thing(row[6:9]) if pair else None,
            PLACES[row[1]],
        )


def _thing_codes(thing: Thing) -> list[int]:
    return [
        SHAPES.index(thing.shape),
        COLOURS.index(thing.colour),
        TEXTURES.index(thing.texture),
    ]


def _thing(row: list[int]) -> Thing:
    return Thing(SHAPES[row[0]], COLOURS[row[1]], TEXTURES[row[2]])


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def caption(scene: Scene) -> str:
    """The scene's one caption; `parse` gives the scene back."""
    first, ground = scene.first, f"on a {scene.background} background"
    if scene.kind == "pair":
        assert scene.second is not None, "a pair needs a second thing"
        second = _article(scene.second.words())
        return f"{_article(first.words())} {scene.place} {second} {ground}"
    if scene.kind != "one":
        return f"{scene.kind} {first.words(plural=True)} {ground}"
    side = "" if scene.place == "centre" else f"at the {scene.place} "
    return f"{_article(first.words())} {side}{ground}"


def parse(text: str) -> Scene:
    """The scene of a caption. Raises ValueError where the text is not of the grammar."""
    body, mark, tail = text.partition(" on a ")
    background = tail.removesuffix(" background")
    scene: Scene | None = None
    with suppress(ValueError, IndexError):
        scene = _parse_body(body.split(), background)
    # Only a text that the scene's own caption repeats is of the grammar.
    if not mark or scene is None or background not in BACKGROUNDS or caption(scene) != text:
        raise ValueError(f"not a caption of the shapes world: {text!r}; one is {EXAMPLE!r}")
    return scene


EXAMPLE = "a red striped ring at the left on a sand background"


def _parse_body(words: list[str], background: str) -> Scene:
    if words[0] in ("two", "three"):
        return Scene(words[0], background, _parse_thing(words[1:]))
    for place in ("left of", "above"):
        mark = place.split()[0]
        if mark in words and "the" not in words:
            cut = words.index(mark)
            rest = words[cut + len(place.split()) :]
            first, second = _parse_thing(words[1:cut]), _parse_thing(rest[1:])
            return Scene("pair", background, first, second, place)
    if "at" in words:
        cut = words.index("at")
        return Scene("one", background, _parse_thing(words[1:cut]), place=words[cut + 2])
    return Scene("one", background, _parse_thing(words[1:]), place="centre")


def _parse_thing(words: list[str]) -> Thing:
    noun = words[-1]
    shape = SHAPES[PLURALS.index(noun)] if noun in PLURALS else noun
    thing = Thing(shape, words[0], "striped" if words[1:-1] == ["striped"] else "solid")
    _thing_codes(thing)
    return thing


def vocabulary() -> list[str]:
    """Every word of the grammar, in a fixed order."""
    glue = ["a", "an", "two", "three", "striped", "on", "at", "the", "background", "of", "above"]
    return [*glue, *_SIDES, *SHAPES, *PLURALS, *COLOURS, *BACKGROUNDS]


def sample_scenes(
    count: int, generator: Generator, shares: Sequence[float] = KIND_SHARES
) -> Tensor:
    """Random scenes as codes_NA int64: KINDS with probabilities `shares`, the rest uniformly.

    The two things of a pair differ in shape and in colour.
    """
    kind_N = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)

    def pick(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    # The order of these draws is part of what a seed means.
    ground_N, shape_N, colour_N, texture_N = pick(4), pick(6), pick(6), pick(2)
    shape2_N, colour2_N = (shape_N + 1 + pick(5)) % 6, (colour_N + 1 + pick(5)) % 6
    texture2_N, side_N, relation_N = pick(2), pick(5), pick(2)
    # PLACES: 0 to 4 for one thing, 5 and 6 for a pair, 7 for equal things.
    pair_N, one_N = kind_N == 3, kind_N == 0
    place_N = torch.where(one_N, side_N, torch.where(pair_N, relation_N + 5, 7))
    second = [
        torch.where(pair_N, value_N, size - 1)
        for value_N, size in zip((shape2_N, colour2_N, texture2_N), SIZES[6:], strict=True)
    ]
    columns = [kind_N, place_N, ground_N, shape_N, colour_N, texture_N, *second]
    return torch.stack(columns, dim=1)


def captions(codes_NA: Tensor) -> list[str]:
    """The captions of scenes given as codes_NA."""
    return [caption(Scene.from_codes(row)) for row in codes_NA.tolist()]


def codes_of(texts: list[str]) -> Tensor:
    """codes_NA int64 of captions. Raises ValueError at the first that is not of the grammar."""
    return torch.tensor([parse(text).codes() for text in texts], dtype=torch.int64)
