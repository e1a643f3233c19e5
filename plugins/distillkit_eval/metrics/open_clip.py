"""open-clip's files in transformers' classes: the same network under other names.

open-clip keeps query, key and value of a layer in one matrix, and projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit_eval.loading import fill, state_dict

VISION_HEAD, TEXT_HEAD = 80, 64
"""Channels of an attention head in ViT-H-14, which the file does not tell."""
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def load_open_clip(path: Path) -> Any:
    """A `CLIPModel` with the weights of an open-clip file of ViT-H-14. Raises `UserError`."""
    from transformers import CLIPModel

    weights = state_dict(path)
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    for name in ("visual.conv1.weight", "text_projection", "visual.proj"):
        if name not in weights:
            raise UserError(f"{path} is no open-clip file: it has no {name}")
    model = CLIPModel(_config(weights))
    fill(model, renamed(weights), path)
    return model


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under transformers' names."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name)
        stem, _, end = name.rpartition(".")
        if layer is not None:
            tower = "vision_model" if layer[1] else "text_model"
            found |= _layer(f"{tower}.encoder.layers.{layer[2]}", layer[3], tensor)
        elif name in NAMES:
            found[NAMES[name]] = tensor
        elif stem in NORMS:
            found[f"{NORMS[stem]}.{end}"] = tensor
        elif name in ("visual.proj", "text_projection"):
            into = "visual_projection" if name == "visual.proj" else "text_projection"
            found[f"{into}.weight"] = tensor.T.contiguous()
        elif name != "attn_mask":  # which is made, not learned
            found[name] = tensor
    return found


def _layer(prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name.startswith("attn.in_proj_"):
        end = name.removeprefix("attn.in_proj_")
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{which}_proj.{end}": part for which, part in parts}
    stem, _, end = name.rpartition(".")
    return {f"{prefix}.{LAYER.get(stem, stem)}.{end}": tensor}


def _config(weights: Mapping[str, Tensor]) -> Any:
    """The network's sizes, read from its tensors."""
    from transformers import CLIPConfig

    width, _, patch, _ = weights["visual.conv1.weight"].shape
    places = len(weights["visual.positional_embedding"]) - 1
    words, text_width = weights["token_embedding.weight"].shape
    joint = weights["text_projection"].shape[1]

    def layers(prefix: str) -> int:
        pattern = rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\."
        return 1 + max(int(m[1]) for name in weights if (m := re.match(pattern, name)))

    def inner(prefix: str) -> int:
        return len(weights[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"])

    same = {"hidden_act": "gelu", "projection_dim": joint}
    vision = same | {
        "hidden_size": width,
        "intermediate_size": inner("visual."),
        "num_hidden_layers": layers("visual."),
        "num_attention_heads": width // VISION_HEAD,
        "patch_size": patch,
        "image_size": round(places**0.5) * patch,
    }
    text = same | {
        "hidden_size": text_width,
        "intermediate_size": inner(""),
        "num_hidden_layers": layers(""),
        "num_attention_heads": text_width // TEXT_HEAD,
        "vocab_size": words,
        "max_position_embeddings": len(weights["positional_embedding"]),
        # The sentence is read at its largest token, which is the end of text.
        "eos_token_id": 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    return CLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=joint,
        logit_scale_init_value=float(torch.as_tensor(weights["logit_scale"])),
    )
