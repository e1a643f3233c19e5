"""Published layouts in transformers' classes, against the networks written down by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear

from distillkit_eval.metrics.image_reward import load_image_reward
from distillkit_eval.metrics.open_clip import load_open_clip
from tests.distillkit_eval.standins import (
    JOINT,
    LAYERS,
    PATCH,
    SIDE,
    WIDTH,
    blip_tensors,
    open_clip_tensors,
)

HEADS = 2
pytestmark = pytest.mark.usefixtures("small_heads")
Weights = dict[str, Tensor]


def norm(x: Tensor, w: Weights, name: str, eps: float = 1e-5) -> Tensor:
    return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def dense(x: Tensor, w: Weights, name: str) -> Tensor:
    return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attended(x: Tensor, w: Weights, names: tuple[str, str, str], causal: bool = False) -> Tensor:
    """torch's own attention, with query, key and value in one matrix as open-clip has them."""
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    weight, bias, out = names
    state = {"in_proj_weight": w[weight], "in_proj_bias": w[bias]}
    state |= {"out_proj.weight": w[f"{out}.weight"], "out_proj.bias": w[f"{out}.bias"]}
    layer.load_state_dict(state)
    mask = torch.full((x.shape[1],) * 2, float("-inf")).triu(1) if causal else None
    return layer(x, x, x, need_weights=False, attn_mask=mask)[0]


def open_clip_tower(x: Tensor, w: Weights, prefix: str, causal: bool) -> Tensor:
    for n in range(LAYERS):
        at = f"{prefix}transformer.resblocks.{n}."
        names = f"{at}attn.in_proj_weight", f"{at}attn.in_proj_bias", f"{at}attn.out_proj"
        x = x + attended(norm(x, w, f"{at}ln_1"), w, names, causal)
        inner = gelu(dense(norm(x, w, f"{at}ln_2"), w, f"{at}mlp.c_fc"))
        x = x + dense(inner, w, f"{at}mlp.c_proj")
    return x


def patches(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return nn.functional.conv2d(x, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)


@torch.no_grad()
def test_open_clips_file_gives_the_same_embeddings(tmp_path: Path) -> None:
    w = open_clip_tensors()
    torch.save({"state_dict": w}, tmp_path / "hps.pt")
    model = load_open_clip(tmp_path / "hps.pt").eval()
    x = torch.rand(2, 3, SIDE, SIDE)
    seen = patches(x, w["visual.conv1.weight"])
    first = w["visual.class_embedding"].expand(2, 1, WIDTH)
    seen = torch.cat([first, seen], 1) + w["visual.positional_embedding"]
    seen = open_clip_tower(norm(seen, w, "visual.ln_pre"), w, "visual.", causal=False)
    image = norm(seen[:, 0], w, "visual.ln_post") @ w["visual.proj"]
    torch.testing.assert_close(model.get_image_features(pixel_values=x).pooler_output, image)
    # Of two texts the second is shorter; what pads it comes after the end and is not looked at.
    ids = torch.tensor([[53, 3, 4, 5, 54], [53, 7, 54, 0, 0]])
    read = w["token_embedding.weight"][ids] + w["positional_embedding"][:5]
    read = norm(open_clip_tower(read, w, "", causal=True), w, "ln_final")
    text = read[[0, 1], [4, 2]] @ w["text_projection"]
    found = model.get_text_features(ids, (ids > 0).long()).pooler_output
    assert found.shape == (2, JOINT)
    torch.testing.assert_close(found, text)
    torch.testing.assert_close(model.logit_scale, w["logit_scale"])


@torch.no_grad()
def test_image_rewards_file_gives_the_same_features_and_head(tmp_path: Path) -> None:
    whole = blip_tensors()
    torch.save(whole, tmp_path / "reward.pt")
    vision, text, head = (m.eval() for m in load_image_reward(tmp_path / "reward.pt"))
    prefix = "blip.visual_encoder."
    w = {n.removeprefix(prefix): t for n, t in whole.items() if n.startswith(prefix)}
    x = torch.rand(2, 3, SIDE, SIDE)
    seen = patches(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    seen = torch.cat([w["cls_token"].expand(2, 1, WIDTH), seen], 1) + w["pos_embed"]
    for n in range(LAYERS):
        at = f"blocks.{n}."
        names = f"{at}attn.qkv.weight", f"{at}attn.qkv.bias", f"{at}attn.proj"
        seen = seen + attended(norm(seen, w, f"{at}norm1", 1e-6), w, names)
        inner = gelu(dense(norm(seen, w, f"{at}norm2", 1e-6), w, f"{at}mlp.fc1"))
        seen = seen + dense(inner, w, f"{at}mlp.fc2")
    seen = norm(seen, w, "norm", 1e-6)
    found = vision(pixel_values=x).last_hidden_state
    torch.testing.assert_close(found, seen)

    prefix = "blip.text_encoder."
    w = {n.removeprefix(prefix): t for n, t in whole.items() if n.startswith(prefix)}
    ids = torch.tensor([[2, 9, 8, 3], [2, 7, 6, 3]])
    read = w["embeddings.word_embeddings.weight"][ids]
    read = norm(
        read + w["embeddings.position_embeddings.weight"][:4], w, "embeddings.LayerNorm", 1e-12
    )
    at = "encoder.layer.0."
    for name, other in (("attention", None), ("crossattention", seen)):
        query = dense(read, w, f"{at}{name}.self.query")
        source = read if other is None else other
        key, value = (dense(source, w, f"{at}{name}.self.{each}") for each in ("key", "value"))
        q, k, v = (t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in (query, key, value))
        mixed = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        mixed = dense(mixed.transpose(1, 2).flatten(2), w, f"{at}{name}.output.dense")
        read = norm(read + mixed, w, f"{at}{name}.output.LayerNorm", 1e-12)
    inner = gelu(dense(read, w, f"{at}intermediate.dense"))
    read = norm(read + dense(inner, w, f"{at}output.dense"), w, f"{at}output.LayerNorm", 1e-12)
    looked = text(
        input_ids=ids, attention_mask=torch.ones_like(ids),
        encoder_hidden_states=seen, encoder_attention_mask=torch.ones(seen.shape[:2]).long(),
    ).last_hidden_state  # fmt: skip
    torch.testing.assert_close(looked, read)
    score = read[:, 0]
    for n in (0, 2, 4, 6, 7):
        score = dense(score, whole, f"mlp.layers.{n}")
    torch.testing.assert_close(head(read[:, 0]), score[:, 0])
