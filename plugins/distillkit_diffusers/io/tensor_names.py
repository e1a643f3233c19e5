"""SDXL's tensor names in files: diffusers' own, and those of the original single-file layout.

The original names are those of the reference code's state dict (`model.diffusion_model.`,
`first_stage_model.`, `conditioner.embedders.`); single-file checkpoints and ComfyUI use them. This
module maps names only; `single_file` converts tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

UNET = "model.diffusion_model."
UNET_PREFIXES = (UNET, "diffusion_model.", "")
"""Of the UNet's names in a checkpoint, and in files of a UNet alone, with and without a prefix."""
SIZE_AND_CROP = "add_embedding.linear_1.weight"
"""A tensor of SDXL's UNet that those of Stable Diffusion 1.5 and 2 do not have."""

TRANSFORMERS = ("double_blocks", "joint_blocks", "transformer_blocks.0.attn.", "noise_refiner.")
"""In names of transformers of SD3, FLUX and Z-Image; UNets' have `attn1` and `attn2`."""

_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = (
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_projection.weight", "text_projection"),
    ("text_model.encoder.layers", "transformer.resblocks"),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.", ".attn."),
)


def unet_names(names: Collection[str]) -> dict[str, str]:
    """Of a whole UNet: diffusers' name -> the original name, without its prefix."""
    layers = 1 + max(
        (int(n.split(".")[3]) for n in names if n.startswith("down_blocks.0.res")), default=1
    )
    attending = {n.split(".")[1] for n in names if n.startswith("up_block") and ".attentions." in n}
    return {name: _unet_name(name, layers + 1, attending) for name in names}


def _unet_name(name: str, stride: int, attending: Collection[str]) -> str:
    """`stride`: original blocks per diffusers block; `attending`: up blocks with attention."""
    module, _, tensor = name.rpartition(".")
    if module in _UNET_TOP:
        return f"{_UNET_TOP[module]}.{tensor}"
    block, *rest = name.split(".")
    if block == "mid_block":
        kind, layer, *inner = rest
        number = 2 * int(layer) + (kind == "attentions")
        return ".".join([f"middle_block.{number}", *_unet_inner(kind, inner)])
    index, kind, layer, *inner = rest
    if block == "down_blocks":
        number = 1 + int(index) * stride + (stride - 1 if kind == "downsamplers" else int(layer))
        slot = int(kind == "attentions")
        return ".".join([f"input_blocks.{number}.{slot}", *_unet_inner(kind, inner)])
    if kind == "upsamplers":
        number, slot = (int(index) + 1) * stride - 1, 1 + (index in attending)
    else:
        number, slot = int(index) * stride + int(layer), int(kind == "attentions")
    return ".".join([f"output_blocks.{number}.{slot}", *_unet_inner(kind, inner)])


def _unet_inner(kind: str, inner: list[str]) -> list[str]:
    if kind == "resnets":
        return [_UNET_RESNET[inner[0]], *inner[1:]]
    return ["op", *inner[1:]] if kind == "downsamplers" else inner


def vae_names(names: Collection[str]) -> dict[str, str]:
    """Of a whole AutoencoderKL: diffusers' name -> the original name, without its prefix."""
    ups = 1 + max(
        (int(n.split(".")[2]) for n in names if n.startswith("decoder.up_blocks")), default=0
    )
    return {name: _vae_name(name, ups) for name in names}


def _vae_name(name: str, ups: int) -> str:
    half, _, rest = name.partition(".")
    if half not in ("encoder", "decoder"):
        return name
    parts = (
        rest.replace("conv_norm_out", "norm_out")
        .replace("conv_shortcut", "nin_shortcut")
        .split(".")
    )
    if parts[0] == "mid_block" and parts[1] == "resnets":
        return ".".join([half, "mid", f"block_{int(parts[2]) + 1}", *parts[3:]])
    if parts[0] == "mid_block":
        inner, _, tensor = ".".join(parts[3:]).rpartition(".")
        return f"{half}.mid.attn_1.{_VAE_ATTENTION[inner]}.{tensor}"
    if parts[0] not in ("down_blocks", "up_blocks"):
        return ".".join([half, *parts])
    way, index = (
        ("down", parts[1]) if parts[0] == "down_blocks" else ("up", str(ups - 1 - int(parts[1])))
    )
    if parts[2] == "resnets":
        return ".".join([half, way, index, "block", *parts[3:]])
    return ".".join([half, way, index, f"{way}sample", *parts[4:]])


def open_clip_name(name: str) -> str:
    """The original name in the second text encoder; q, k and v are still separate."""
    for diffusers_part, original_part in _OPEN_CLIP:
        name = name.replace(diffusers_part, original_part)
    return name


def old_clip_name(name: str) -> str:
    """With the `text_model.` that transformers 5.6 and later drop from CLIPTextModel's keys."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def find_unet(keys: Collection[str]) -> dict[str, str] | None:
    """Original name -> key of the SDXL UNet in a file of either layout; None if there is none."""
    if (
        SIZE_AND_CROP in keys
        and "conv_in.weight" in keys
        and "controlnet_cond_embedding.conv_in.weight" not in keys
    ):
        try:
            return {original: key for key, original in unet_names(keys).items()}
        except (ValueError, KeyError, IndexError):
            return None
    for prefix in UNET_PREFIXES:
        if f"{prefix}label_emb.0.0.weight" in keys and f"{prefix}input_blocks.0.0.weight" in keys:
            return {k.removeprefix(prefix): k for k in keys if k.startswith(prefix)}
    return None


def what_is(keys: Iterable[str]) -> str:
    """What a file with these tensors seems to be, as part of a sentence: "a VAE"."""
    keys = set(keys)
    ends: Mapping[str, str] = {
        "lora_down.weight": "a LoRA",
        "lora_A.weight": "a LoRA",
        "lora.down.weight": "a LoRA",
    }
    for end, kind in ends.items():
        if any(key.endswith(end) for key in keys):
            return kind
    if find_unet(keys):
        whole = any(key.startswith("conditioner.") for key in keys)
        return "a whole SDXL checkpoint" if whole else "an SDXL-class UNet"
    if any(key.startswith("cond_stage_model.") for key in keys):
        return "a checkpoint of Stable Diffusion 1 or 2, not of SDXL"
    unets = ("conv_in.weight", *(f"{prefix}input_blocks.0.0.weight" for prefix in UNET_PREFIXES))
    if any(part in key for key in keys for part in TRANSFORMERS):
        return "a transformer of another family or size"
    if keys.intersection(unets):
        return "a UNet without SDXL's size and crop embedding, such as Stable Diffusion 1.5's"
    if any(key.startswith(("decoder.", "first_stage_model.decoder.")) for key in keys):
        return "a VAE"
    if any("text_model." in key or "resblocks." in key or "embeddings." in key for key in keys):
        return "a text encoder"
    return "something else"
