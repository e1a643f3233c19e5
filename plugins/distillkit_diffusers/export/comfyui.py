"""A ComfyUI workflow for an exported file, in its API format: node number -> class and inputs.

ComfyUI's `simple` scheduler takes noise levels 999 - 1000 i / k for step i of k, which for 1, 2 and
4 steps are the student's own; its `lcm` sampler goes from one to the next by fresh noise, `euler`
along the flow, as students do.
"""

from __future__ import annotations

from typing import Any, Literal

from distillkit_diffusers.io.hub import is_checkpoint
from distillkit_diffusers.io.prediction import Prediction

BASE = "sd_xl_base_1.0.safetensors"
"""The checkpoint that brings what an exported file lacks; users set their own."""
SD3_BASE = "sd3.5_medium.safetensors"
SD3_ENCODERS = ("clip_l.safetensors", "clip_g.safetensors", "t5xxl_fp16.safetensors")
SD3_SHIFT = 3.0
"""Of the noise schedule that ComfyUI gives this family by itself."""
SHIFT_NODE = "Timestep Shift Model"
"""Of the custom node ComfyUI-TimestepShiftModel, which NitroSD's authors point to."""

FOLDERS = {"checkpoint": "checkpoints", "unet": "diffusion_models", "lora": "loras"}
"""Where ComfyUI looks for each kind of file, below `models`."""
Kind = Literal["checkpoint", "unet", "lora"]


def workflow(
    kind: Kind,
    name: str,
    shift: int,
    height: int,
    width: int,
    prediction: Prediction | None = None,
    base: str | None = None,
) -> dict[str, Any]:
    """Draws with the file `name` in 4 steps, without guidance; `height`, `width` in pixels.

    A shift of 1000 is none, and needs no node; nor does a prediction of epsilon. `base`: the
    checkpoint that brings what the file lacks, in place of SDXL's.
    """
    checkpoint = name if kind == "checkpoint" else base or BASE
    nodes = {"1": _node("CheckpointLoaderSimple", ckpt_name=checkpoint)}
    model = ["1", 0]
    if kind == "unet":
        nodes["2"] = _node("UNETLoader", unet_name=name, weight_dtype="default")
        model = ["2", 0]
    if kind == "lora":
        nodes["2"] = _node("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=1.0)
        model = ["2", 0]
    if prediction is not None and not prediction.is_usual:
        nodes["10"] = _node("ModelSamplingDiscrete", model=model, **prediction.comfyui)
        model = ["10", 0]
    if shift != 1000:
        nodes["3"] = _node(SHIFT_NODE, model=model, shifted_timestep=shift)
        model = ["3", 0]
    latent = _node("EmptyLatentImage", width=width, height=height, batch_size=1)
    return nodes | _drawing(model, ["1", 1], latent, "lcm")


def checkpoint_name(model: str) -> str:
    """What ComfyUI may have a model's checkpoint by: the last name of a path or a hub id."""
    name = model.rpartition("/")[2]
    return name if is_checkpoint(name) else f"{name}.safetensors"


def sd3_workflow(
    name: str, shift: float, sampler: str, height: int, width: int, t5: bool = True
) -> dict[str, Any]:
    """The same for a LoRA of the SD3 family. `shift`: of its noise schedule, which ComfyUI takes to
    be 3 where no node says otherwise. `sampler`: `lcm` or `euler`. `t5`: whether the third text
    encoder is loaded."""
    files = SD3_ENCODERS if t5 else SD3_ENCODERS[:2]
    encoders = {f"clip_name{n}": file for n, file in enumerate(files, 1)}
    loader = _node("TripleCLIPLoader", **encoders)
    if not t5:
        loader = _node("DualCLIPLoader", **encoders, type="sd3")
    nodes = {
        "1": _node("CheckpointLoaderSimple", ckpt_name=SD3_BASE),
        "2": _node("LoraLoaderModelOnly", model=["1", 0], lora_name=name, strength_model=1.0),
        "10": loader,
    }
    model = ["2", 0]
    if shift != SD3_SHIFT:
        nodes["3"] = _node("ModelSamplingSD3", model=model, shift=shift)
        model = ["3", 0]
    latent = _node("EmptySD3LatentImage", width=width, height=height, batch_size=1)
    return nodes | _drawing(model, ["10", 0], latent, sampler)


def _drawing(model: Any, clip: Any, latent: Any, sampler: str) -> dict[str, Any]:
    """From the model to the file; its VAE is the checkpoint's, node 1."""
    sampling = {"seed": 0, "steps": 4, "cfg": 1.0, "sampler_name": sampler, "scheduler": "simple"}
    return {
        "4": _node("CLIPTextEncode", clip=clip, text="a lighthouse at dawn"),
        "5": _node("CLIPTextEncode", clip=clip, text=""),
        "6": latent,
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
