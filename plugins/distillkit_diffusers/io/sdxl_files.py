"""SDXL's configs and tokenizers, which single-file checkpoints lack. They ship in `sdxl/`."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

SDXL_FILES = Path(__file__).parent / "sdxl"
"""A pipeline folder without weights and tokenizers: Stable Diffusion XL base 1.0's configs."""


def tokenizers() -> dict[str, Any]:
    """CLIP's tokenizer twice, by the name of the pipeline's component; they differ in padding."""
    from transformers import CLIPTokenizer

    vocab, merges = byte_pairs()
    pads = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
    return {
        name: CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)
        for name, pad in pads.items()
    }


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's 49,408 tokens with their ids, and its merges in order.

    The ids follow from the merges: bytes, bytes that end a word, merged pairs, start and end.
    """
    lines = gzip.decompress((SDXL_FILES / "merges.txt.gz").read_bytes()).decode().split("\n")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def _byte_letters() -> list[str]:
    """One printable character a byte: printable bytes map to themselves and come first."""
    ranges = (range(ord("!"), ord("~") + 1), range(ord("¡"), ord("¬") + 1), range(174, 256))
    plain = [chr(byte) for numbers in ranges for byte in numbers]
    return plain + [chr(256 + i) for i in range(256 - len(plain))]
