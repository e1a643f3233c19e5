"""A published student: a folder that stock diffusers loads, with the scheduler of its roll-outs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distillkit.atomic import appearing
from distillkit.errors import UserError
from distillkit_diffusers.io.loading import no_progress_bars
from distillkit_diffusers.io.publish import front_matter

README = """\
# A Stable Diffusion 3 model for one to four steps

Made with distillkit, for diffusers alone. It is run without guidance, at its own noise levels:
`sigmas` are those before the scheduler's shift. {between}

```python
import torch
from diffusers import StableDiffusion3Pipeline

folder = "."  # this folder; from the hub: huggingface_hub.snapshot_download("owner/name")
pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.{dtype}{without})
sigmas = {grids}
image = pipe("a lighthouse at dawn", sigmas=sigmas[1], guidance_scale=0).images[0]
```
"""
NO_T5 = ", text_encoder_3=None, tokenizer_3=None"
BETWEEN = {
    True: "Between steps the scheduler adds fresh noise (`stochastic_sampling`).",
    False: "Between steps the scheduler follows the flow and draws nothing.",
}


def stock_sigmas(levels: Sequence[float], steps: int) -> list[float]:
    """A roll-out's noise levels as the stock pipeline takes them: (t + 1) / 1000, unshifted."""
    return [round((levels[i * len(levels) // steps] + 1) / 1000, 6) for i in range(steps)]


def publish_pipeline(
    pipe: Any, transformer: Any, folder: Path, *, scheduler: Any, levels: Sequence[float]
) -> None:
    """Write `pipe` with this transformer and scheduler for its own; whole or not at all.

    An earlier publication in the same folder is replaced; a folder with other files is a
    `UserError`.
    """
    folder = Path(folder)
    published = (folder / "model_index.json").is_file()
    if folder.exists() and not published and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder} has other files than a pipeline's; name another folder")
    with appearing(folder) as temporary:
        temporary.mkdir()
        try:
            with no_progress_bars():
                parts = {**pipe.components, "transformer": transformer, "scheduler": scheduler}
                type(pipe)(**parts).save_pretrained(temporary, safe_serialization=True)
        except SafetensorError as error:  # the library's way to report a full disk
            raise OSError(str(error)) from error
        grids = {steps: stock_sigmas(levels, steps) for steps in (1, 2, 3, 4)}
        page = README.format(
            between=BETWEEN[bool(scheduler.config.stochastic_sampling)],
            without=NO_T5 if pipe.text_encoder_3 is None else "",
            dtype=str(transformer.dtype).removeprefix("torch."),
            grids=grids,
        )
        head = front_matter(num_inference_steps=4, sigmas=grids[4])
        (temporary / "README.md").write_text(head + page, encoding="utf-8")
