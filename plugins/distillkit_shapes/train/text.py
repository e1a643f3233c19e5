"""Stage text: both text encoders learn to tell a caption's attributes, and are frozen afterwards.

So the UNet has a meaningful condition from its first iteration.
Legend: N captions, L = 20 tokens, D = 128 context units, P = 64 pooled units, A = 9 attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillkit_shapes import architecture
from distillkit_shapes.scenes import SIZES, captions, sample_scenes
from distillkit_shapes.train.data import TimeBudget, generator, log, lr_at


class Encoders:
    """Both tokenizers and text encoders, called as StableDiffusionXLPipeline calls them."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts

    def ids(self, texts: list[str]) -> Tensor:
        """Both tokenizers' ids_2NL int64."""
        both = [
            self.parts[name](
                texts,
                padding="max_length",
                max_length=architecture.TOKENS,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for name in ("tokenizer", "tokenizer_2")
        ]
        return torch.stack(both)

    def __call__(self, ids_2NL: Tensor) -> tuple[Tensor, Tensor]:
        """context_NLD (penultimate layers of both) and pooled_NP."""
        one = self.parts["text_encoder"](ids_2NL[0], output_hidden_states=True)
        two = self.parts["text_encoder_2"](ids_2NL[1], output_hidden_states=True)
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        return context, two.text_embeds


class AttributeHead(nn.Module):
    """Predicts attributes from a condition: attention pooling by one learnt query an attribute."""

    def __init__(self) -> None:
        super().__init__()
        width = 2 * architecture.HIDDEN
        self.query_AD = nn.Parameter(torch.randn(len(SIZES), width) * 0.1)
        self.words = nn.ModuleList(nn.Linear(width, size) for size in SIZES)
        self.whole = nn.ModuleList(nn.Linear(architecture.HIDDEN, size) for size in SIZES)

    def forward(self, context_NLD: Tensor, pooled_NP: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits of each attribute from the words and from the pooled embedding."""
        weight_NAL = torch.softmax(self.query_AD @ context_NLD.transpose(1, 2), dim=-1)
        read_NAD = weight_NAL @ context_NLD
        return [
            (words(read_NAD[:, a]), whole(pooled_NP))
            for a, (words, whole) in enumerate(zip(self.words, self.whole, strict=True))
        ]


def new_text_parts() -> dict[str, Any]:
    """Tokenizers and untrained encoders, seeded."""
    one, two = architecture.tokenizer("<|endoftext|>"), architecture.tokenizer("!")
    with torch.random.fork_rng():
        torch.manual_seed(200)
        return {
            "tokenizer": one,
            "tokenizer_2": two,
            "text_encoder": architecture.text_encoder(one, projected=False),
            "text_encoder_2": architecture.text_encoder(two, projected=True),
        }


def train_text(out: Path, minutes: float, batch: int = 128) -> None:
    """Trains for `minutes` and saves the four text parts to `out`, encoders in float16."""
    parts, rng = new_text_parts(), generator(201)
    encoders = Encoders(parts)
    with torch.random.fork_rng():
        torch.manual_seed(202)
        head = AttributeHead()
    owners = (parts["text_encoder"], parts["text_encoder_2"], head)
    weights = [weight for owner in owners for weight in owner.parameters()]
    optim = torch.optim.AdamW(weights, lr=2e-3, betas=(0.9, 0.99))
    budget, step = TimeBudget(minutes), 0
    while budget.progress < 1:
        for group in optim.param_groups:
            group["lr"] = lr_at(budget.progress, 2e-3, warmup=0.05)
        codes_NA = sample_scenes(batch, rng)
        context_NLD, pooled_NP = encoders(encoders.ids(captions(codes_NA)))
        logits, truth = head(context_NLD, pooled_NP), codes_NA.unbind(1)
        # Every attribute from the words and from the pooled embedding, by cross-entropy.
        loss = torch.stack(
            [cross_entropy(x, y) for pair, y in zip(logits, truth, strict=True) for x in pair]
        ).mean()
        # Keep the condition at unit variance, the scale that the UNet's inputs have.
        scale_loss = sum((x.square().mean() - 1).square() for x in (context_NLD, pooled_NP))
        optim.zero_grad()
        (loss + 0.01 * scale_loss).backward()
        optim.step()
        if step % 50 == 0:
            size = " ".join(f"{x.std():.2f}" for x in (context_NLD, pooled_NP))
            log(f"text {step} loss {loss.item():.4f} {accuracy(logits, truth)} std {size}")
        step += 1
    for name, part in parts.items():
        (part.half() if name.startswith("text") else part).save_pretrained(out / name)


def accuracy(logits: list[tuple[Tensor, Tensor]], truth: tuple[Tensor, ...]) -> str:
    """Share of captions with every attribute right, by the words and by the pooled embedding."""
    right = [
        torch.stack([pair[i].argmax(1) == y for pair, y in zip(logits, truth, strict=True)])
        for i in (0, 1)
    ]
    shares = " ".join(f"{r.all(dim=0).float().mean():.3f}" for r in right)
    return f"whole captions {shares}"
