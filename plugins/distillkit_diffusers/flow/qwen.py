"""Texts through Qwen3, which two families have as their text encoder.

Legend: B batch, L tokens, S layers, D units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode(
    pipe: Any, prompts: Sequence[str], tokens: int, layers: Sequence[int], thinking: bool
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, L, S, D) of some layers, and which tokens are text (B, L).

    Each prompt stands in the encoder's chat template and is padded to `tokens`, as the stock
    pipelines do; the encoder's head, which predicts words, is not run. `thinking`: the template's
    option.
    """
    chats = [
        pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        for prompt in prompts
    ]
    given = pipe.tokenizer(
        chats, padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    )
    encoder = pipe.text_encoder.base_model
    mask_BL = given.attention_mask.to(encoder.device).bool()
    states = encoder(
        input_ids=given.input_ids.to(encoder.device),
        attention_mask=_causal(encoder, mask_BL) if mask_BL.is_meta else mask_BL,
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    return torch.stack([states[layer] for layer in layers], dim=2), mask_BL


def _causal(encoder: Any, mask_BL: Tensor) -> dict[str, Tensor]:
    """In a plan: the masks of the encoder's layers, which it makes itself by looking at values."""
    mask_B1LL = mask_BL[:, None, None, :].expand(-1, 1, mask_BL.shape[1], -1)
    return dict.fromkeys(encoder.config.layer_types, mask_B1LL)
