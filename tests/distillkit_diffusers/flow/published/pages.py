"""The Python of a published page, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

PROMPT = "a lighthouse at dawn"


def run_page(page: Path, x_T: torch.Tensor, base: Path | None = None) -> Any:
    """The picture (1, 3, height, width) that the page's own call draws from `x_T`; in float32, and
    without a progress bar. The current folder is the page's. `base`: in place of its own."""
    [code] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("torch.bfloat16", "torch.float32")
    if base is not None:
        code, count = re.subn(r'base = "[^"]*"', f"base = {str(base)!r}", code)
        assert count == 1
    quiet = "pipe.set_progress_bar_config(disable=True)\nimage = "
    own = f'image = pipe(prompt="{PROMPT}", '
    assert code.count(own) == 1
    code = code.replace(own, own + 'latents=x_T.clone(), output_type="pt", ')
    code = code.replace("image = ", quiet)
    names: dict[str, Any] = {"x_T": x_T}
    exec(code.replace(".images[0]", ".images"), names)
    return names["image"]
