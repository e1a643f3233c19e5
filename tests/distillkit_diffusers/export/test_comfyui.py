"""ComfyUI's workflow of an exported file: a whole graph, on the student's noise levels."""

from __future__ import annotations

from typing import Any

import pytest

from distillkit_diffusers.export.comfyui import (
    SD3_SHIFT,
    SHIFT_NODE,
    Kind,
    sd3_workflow,
    workflow,
)


def of_class(graph: dict[str, Any], name: str) -> dict[str, Any]:
    found = [node["inputs"] for node in graph.values() if node["class_type"] == name]
    assert len(found) == 1, name
    return dict(found[0])


def check_links(graph: dict[str, Any]) -> None:
    links = [v for node in graph.values() for v in node["inputs"].values() if isinstance(v, list)]
    assert links
    assert all(source in graph and isinstance(output, int) for source, output in links)


@pytest.mark.parametrize("shift", [500, 1000])
@pytest.mark.parametrize("kind", ["checkpoint", "unet", "lora"])
def test_a_workflow_is_a_whole_graph(kind: Kind, shift: int) -> None:
    graph = workflow(kind, "mine.safetensors", shift, 1024, 768)
    check_links(graph)
    sampler = of_class(graph, "KSampler")
    assert (sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (1, "lcm", "simple")
    loader = {
        "checkpoint": ("CheckpointLoaderSimple", "ckpt_name"),
        "unet": ("UNETLoader", "unet_name"),
        "lora": ("LoraLoaderModelOnly", "lora_name"),
    }[kind]
    assert of_class(graph, loader[0])[loader[1]] == "mine.safetensors"
    # The model goes through the file's loader and, where there is a shift, through its node.
    last = graph[sampler["model"][0]]
    assert last["class_type"] == (SHIFT_NODE if shift == 500 else loader[0])
    if shift == 500:
        assert last["inputs"]["shifted_timestep"] == 500
        assert graph[last["inputs"]["model"][0]]["class_type"] == loader[0]
    size = of_class(graph, "EmptyLatentImage")
    assert (size["height"], size["width"]) == (1024, 768)


@pytest.mark.parametrize("shift", [SD3_SHIFT, 5.0])
def test_a_workflow_of_the_sd3_family(shift: float) -> None:
    """A node for the shift where it is another than ComfyUI's own for the family."""
    graph = sd3_workflow("mine.safetensors", shift, "euler", 1024, 768)
    check_links(graph)
    sampler = of_class(graph, "KSampler")
    assert (sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (1, "euler", "simple")
    last = graph[sampler["model"][0]]
    if shift == SD3_SHIFT:
        assert last["class_type"] == "LoraLoaderModelOnly"
    else:
        assert (last["class_type"], last["inputs"]["shift"]) == ("ModelSamplingSD3", 5.0)
    assert len(of_class(graph, "TripleCLIPLoader")) == 3
    both = sd3_workflow("mine.safetensors", shift, "euler", 1024, 768, t5=False)
    check_links(both)
    assert of_class(both, "DualCLIPLoader")["type"] == "sd3"
    assert of_class(graph, "EmptySD3LatentImage")["width"] == 768
    assert graph[of_class(graph, "VAEDecode")["vae"][0]]["class_type"] == "CheckpointLoaderSimple"
