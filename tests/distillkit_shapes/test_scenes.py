"""The grammar: caption and scene determine each other, and scenes come from their generator."""

from __future__ import annotations

import pytest
import torch

from distillkit_shapes import scenes
from distillkit_shapes.scenes import Scene, Thing


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        (
            "a red striped ring at the left on a sand background",
            Scene("one", "sand", Thing("ring", "red", "striped"), place="left"),
        ),
        (
            "an orange cross on a stone background",
            Scene("one", "stone", Thing("cross", "orange"), place="centre"),
        ),
        (
            "three blue crosses on a night background",
            Scene("three", "night", Thing("cross", "blue")),
        ),
        (
            "a green star left of an orange striped circle on a sky background",
            Scene(
                "pair",
                "sky",
                Thing("star", "green"),
                Thing("circle", "orange", "striped"),
                "left of",
            ),
        ),
    ],
)
def test_caption_and_scene_determine_each_other(text: str, scene: Scene) -> None:
    assert scenes.parse(text) == scene
    assert scenes.caption(scene) == text
    assert Scene.from_codes(scene.codes()) == scene


def test_random_scenes_survive_the_round_trip() -> None:
    codes_NA = scenes.sample_scenes(2000, torch.Generator().manual_seed(1))
    texts = scenes.captions(codes_NA)
    assert torch.equal(scenes.codes_of(texts), codes_NA)
    assert {word for text in texts for word in text.split()} == set(scenes.vocabulary())
    assert all((codes_NA[:, a] < size).all() for a, size in enumerate(scenes.SIZES))


def test_the_generator_alone_decides() -> None:
    first, again = (scenes.sample_scenes(50, torch.Generator().manual_seed(5)) for _ in range(2))
    other = scenes.sample_scenes(50, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "a red ring on a pink background",
        "a orange ring on a sand background",
        "two red ring on a sand background",
        "a red rings on a sand background",
        "a red ring at the centre on a sand background",
        "a red ring above on a sand background",
        "a red ring on a sand background today",
    ],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a caption of the shapes world.*one is 'a red"):
        scenes.parse(text)
