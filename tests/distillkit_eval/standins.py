"""Small random networks in the layouts in which the real weights are published."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, JOINT, SIDE, PATCH, TOKENS, LAYERS = 16, 8, 16, 8, 12, 2
LETTERS = string.ascii_lowercase


def save_clip(folder: Path) -> Path:
    """CLIP as transformers saves it, with a tokenizer of letters."""
    from transformers import CLIPConfig, CLIPModel

    save_tokenizer(folder)
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": JOINT,
    }
    text = tower | {"vocab_size": 55, "max_position_embeddings": TOKENS, "eos_token_id": 54}
    vision = tower | {"image_size": SIDE, "patch_size": PATCH}
    ends = {"bos_token_id": 53, "pad_token_id": 0}
    config = CLIPConfig(text_config=text | ends, vision_config=vision, projection_dim=JOINT)
    torch.manual_seed(1)
    CLIPModel(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> Path:
    """CLIP's kind of tokenizer: letters are tokens; the end of text is the largest number."""
    from transformers import CLIPTokenizer

    names = ["!", *LETTERS, *(f"{a}</w>" for a in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocab = {name: i for i, name in enumerate(names)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], pad_token="!", model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert_tokenizer(folder: Path) -> Path:
    """BERT's kind of tokenizer: letters, and the pieces that continue a word."""
    from transformers import BertTokenizer

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{a}" for a in LETTERS)]
    BertTokenizer(vocab={name: i for i, name in enumerate(names)}).save_pretrained(folder)
    return folder


def save_dino(folder: Path) -> Path:
    """DINOv2 as transformers saves it."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(2)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Normal numbers that keep a signal's size; norms near 1."""
    torch.manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        scale = 0.3 / max(shape[-1:] or (1,)) ** 0.5 if len(shape) > 1 else 0.1
        offset = 1.0 if name.endswith("weight") and len(shape) == 1 else 0.0
        made[name] = offset + scale * torch.randn(shape)
    return made


def open_clip_tensors() -> dict[str, Tensor]:
    """open-clip's names (those of HPS_v2.1_compressed.pt): two towers, heads of 8 channels."""

    def tower(prefix: str) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for n in range(LAYERS):
            at = f"{prefix}transformer.resblocks.{n}."
            for norm in ("ln_1", "ln_2"):
                found |= {f"{at}{norm}.weight": (WIDTH,), f"{at}{norm}.bias": (WIDTH,)}
            found[f"{at}attn.in_proj_weight"] = (3 * WIDTH, WIDTH)
            found[f"{at}attn.in_proj_bias"] = (3 * WIDTH,)
            found |= {
                f"{at}attn.out_proj.weight": (WIDTH, WIDTH),
                f"{at}attn.out_proj.bias": (WIDTH,),
            }
            found |= {
                f"{at}mlp.c_fc.weight": (2 * WIDTH, WIDTH),
                f"{at}mlp.c_fc.bias": (2 * WIDTH,),
            }
            found |= {
                f"{at}mlp.c_proj.weight": (WIDTH, 2 * WIDTH),
                f"{at}mlp.c_proj.bias": (WIDTH,),
            }
        return found

    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (TOKENS, WIDTH),
        "text_projection": (WIDTH, JOINT),
        "logit_scale": (),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": (WIDTH, JOINT),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "token_embedding.weight": (55, WIDTH),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    return random_tensors(shapes | tower("visual.") | tower(""), seed=3)


def blip_tensors() -> dict[str, Tensor]:
    """The names of ImageReward.pt: BLIP's towers, and the head."""
    seen: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (2, 1), "mlp.fc2": (1, 2)}
    for n in range(LAYERS):
        for norm in ("norm1", "norm2"):
            seen |= {f"blocks.{n}.{norm}.{end}": (WIDTH,) for end in ("weight", "bias")}
        for name, (out, into) in linear.items():
            seen[f"blocks.{n}.{name}.weight"] = (out * WIDTH, into * WIDTH)
            seen[f"blocks.{n}.{name}.bias"] = (out * WIDTH,)
    read: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (57, WIDTH),
        "embeddings.position_embeddings.weight": (40, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    layer = {"intermediate.dense": (2, 1), "output.dense": (1, 2)}
    for attention in ("attention", "crossattention"):
        layer |= {f"{attention}.self.{each}": (1, 1) for each in ("query", "key", "value")}
        layer |= {f"{attention}.output.dense": (1, 1)}
        norm = f"encoder.layer.0.{attention}.output.LayerNorm"
        read |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    read |= {f"encoder.layer.0.output.LayerNorm.{end}": (WIDTH,) for end in ("weight", "bias")}
    for name, (out, into) in layer.items():
        read[f"encoder.layer.0.{name}.weight"] = (out * WIDTH, into * WIDTH)
        read[f"encoder.layer.0.{name}.bias"] = (out * WIDTH,)
    shapes = {f"blip.visual_encoder.{n}": s for n, s in seen.items()}
    shapes |= {f"blip.text_encoder.{n}": s for n, s in read.items()}
    tensors = random_tensors(shapes, seed=4) | head_tensors(WIDTH, "mlp.")
    # A buffer of older versions of transformers, which the published file has.
    tensors["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return tensors


def head_tensors(width: int, prefix: str = "") -> dict[str, Tensor]:
    """The names of sac+logos+ava1-l14-linearMSE.pth."""
    sizes = (width, 1024, 128, 64, 16, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for n, place in enumerate((0, 2, 4, 6, 7)):
        shapes[f"{prefix}layers.{place}.weight"] = (sizes[n + 1], sizes[n])
        shapes[f"{prefix}layers.{place}.bias"] = (sizes[n + 1],)
    return random_tensors(shapes, seed=5)


class FakeInception(nn.Module):
    """Stands for torch-fidelity's network: the colours' means at nine places, as 2048 would be."""

    def __init__(self, name: str, features: list[str], feature_extractor_weights_path: Any) -> None:
        super().__init__()
        assert (name, features) == ("inception-v3-compat", ["2048"])
        self.weights = torch.load(feature_extractor_weights_path, weights_only=True)

    def forward(self, x_B3HW: Tensor) -> tuple[Tensor]:
        assert x_B3HW.dtype == torch.uint8
        return (nn.functional.adaptive_avg_pool2d(x_B3HW.float(), 3).flatten(1) * self.weights,)
