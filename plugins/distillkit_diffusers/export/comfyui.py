"""A ComfyUI workflow for an exported file, in its API format: node number -> class and inputs.

ComfyUI's `simple` scheduler takes noise levels 999 - 1000 i / k for step i of k, which for 1, 2 and
4 steps are the student's own; its `lcm` sampler goes from one to the next as the student does.
"""

from __future__ import annotations

from typing import Any, Literal

BASE = "sd_xl_base_1.0.safetensors"
"""The checkpoint that brings what an exported file lacks; users set their own."""
SHIFT_NODE = "Timestep Shift Model"
"""Of the custom node ComfyUI-TimestepShiftModel, which NitroSD's authors point to."""

FOLDERS = {"checkpoint": "checkpoints", "unet": "diffusion_models", "lora": "loras"}
"""Where ComfyUI looks for each kind of file, below `models`."""
Kind = Literal["checkpoint", "unet", "lora"]


def workflow(kind: Kind, name: str, shift: int, height: int, width: int) -> dict[str, Any]:
    """Draws with the file `name` in 4 steps, without guidance; `height`, `width` in pixels.

    A shift of 1000 is none, and needs no node.
    """
    checkpoint = name if kind == "checkpoint" else BASE
    nodes = {"1": _node("CheckpointLoaderSimple", ckpt_name=checkpoint)}
    model = ["1", 0]
    if kind == "unet":
        nodes["2"] = _node("UNETLoader", unet_name=name, weight_dtype="default")
        model = ["2", 0]
    if kind == "lora":
        nodes["2"] = _node("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=1.0)
        model = ["2", 0]
    if shift != 1000:
        nodes["3"] = _node(SHIFT_NODE, model=model, shifted_timestep=shift)
        model = ["3", 0]
    prompt = "a lighthouse at dawn"
    sampling = {"seed": 0, "steps": 4, "cfg": 1.0, "sampler_name": "lcm", "scheduler": "simple"}
    return nodes | {
        "4": _node("CLIPTextEncode", clip=["1", 1], text=prompt),
        "5": _node("CLIPTextEncode", clip=["1", 1], text=""),
        "6": _node("EmptyLatentImage", width=width, height=height, batch_size=1),
        "7": _node(
            "KSampler",
            model=model,
            positive=["4", 0],
            negative=["5", 0],
            latent_image=["6", 0],
            denoise=1.0,
            **sampling,
        ),
        "8": _node("VAEDecode", samples=["7", 0], vae=["1", 2]),
        "9": _node("SaveImage", images=["8", 0], filename_prefix="distillkit"),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
