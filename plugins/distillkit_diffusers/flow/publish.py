"""A published student: a folder that stock diffusers loads, with the scheduler of its roll-outs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillkit_diffusers.common.publishing import published
from distillkit_diffusers.flow.scheduler import euler_scheduler
from distillkit_diffusers.flow.settings import PublishedSettings, write_settings
from distillkit_diffusers.io.loading import no_progress_bars
from distillkit_diffusers.io.publish import front_matter

if TYPE_CHECKING:
    from distillkit_diffusers.flow.teacher import FlowTeacher

README = """\
# A {family} model for one to four steps

Made with distillkit, for diffusers alone. It is run without guidance, at its own noise levels:
`sigmas` are those before the scheduler's shift. {between}

```python
import torch
from diffusers import {pipeline}

folder = "."  # this folder; from the hub: huggingface_hub.snapshot_download("owner/name")
pipe = {pipeline}.from_pretrained(folder, dtype=torch.{dtype}{without})
sigmas = {grids}
image = pipe(prompt="a lighthouse at dawn", {settings}sigmas=sigmas[1], guidance_scale=0).images[0]
```
"""
BETWEEN = {
    True: "Between steps the scheduler adds fresh noise (`stochastic_sampling`).",
    False: "Between steps the scheduler follows the flow and draws nothing.",
}


def stock_sigmas(levels: Sequence[float], steps: int) -> list[float]:
    """A roll-out's noise levels as the stock pipeline takes them: (t + 1) / 1000, unshifted."""
    return [round((levels[i * len(levels) // steps] + 1) / 1000, 6) for i in range(steps)]


def publish_pipeline(
    teacher: FlowTeacher,
    transformer: Any,
    folder: Path,
    *,
    stochastic: bool,
    levels: Sequence[float],
) -> None:
    """Write the teacher's pipeline with this transformer and the student's scheduler; whole or not
    at all.

    An earlier publication in the same folder is replaced; a folder with other files is a
    `UserError`. `stochastic`: fresh noise between steps.
    """
    pipe = teacher.pipe
    scheduler = euler_scheduler(teacher.shift, stochastic)
    with published(folder) as temporary:
        with no_progress_bars(), _absent_parts_untold():
            parts = {**pipe.components, "transformer": transformer, "scheduler": scheduler}
            whole = type(pipe)(**parts, **teacher.published_options)
            whole.save_pretrained(temporary, safe_serialization=True)
        _state_size(temporary / "vae" / "config.json", teacher.image_size[0])
        grids = {steps: stock_sigmas(levels, steps) for steps in (1, 2, 3, 4)}
        page = README.format(
            family=teacher.family.name,
            pipeline=type(pipe).__name__,
            between=BETWEEN[stochastic],
            without=not_loaded(teacher),
            settings=in_call(teacher),
            dtype=str(transformer.dtype).removeprefix("torch."),
            grids=grids,
        )
        head = front_matter(num_inference_steps=4, sigmas=grids[4], **teacher.call_settings())
        stated = PublishedSettings(levels=tuple(levels), max_tokens=teacher.options.max_tokens)
        write_settings(temporary, stated)
        (temporary / "README.md").write_text(head + page, encoding="utf-8")


def in_call(teacher: FlowTeacher) -> str:
    """The stock pipeline's settings as they stand in a call, before its last arguments."""
    return "".join(f"{name}={value}, " for name, value in teacher.call_settings().items())


def not_loaded(teacher: FlowTeacher) -> str:
    """The parts that are left out, as they stand in a call of `from_pretrained`, after its first
    arguments."""
    return "".join(f", {name}=None" for name in teacher.parts_left_out())


@contextmanager
def _absent_parts_untold() -> Iterator[None]:
    """Inside, diffusers does not warn of the parts that the teacher was loaded without."""

    def told(record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith("<class 'NoneType'> cannot be saved.")

    logger = logging.getLogger("diffusers.pipelines.pipeline_utils")
    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)


def _state_size(vae_config: Path, pixels: int) -> None:
    """The VAE's config says how large pictures are, for whoever opens the folder with distillkit;
    diffusers reads it for the size of tiles alone."""
    config = json.loads(vae_config.read_text(encoding="utf-8")) | {"sample_size": pixels}
    vae_config.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
