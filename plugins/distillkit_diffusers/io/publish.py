"""A published student: a folder that stock diffusers loads, with the student's timestep shift."""

from __future__ import annotations

import json
import shutil
from inspect import getfile
from pathlib import Path
from typing import Any

from distillkit_diffusers.common.publishing import published
from distillkit_diffusers.io.loading import no_progress_bars
from distillkit_diffusers.io.tensor_names import old_clip_name

SHIFT_FOLDER = "scheduler_shift"
"""Subfolder of the shifted scheduler's config and code."""

README = """\
# A Stable Diffusion XL model for one to four steps

Made with distillkit. The UNet is run at a shifted timestep, floor(t * {shift} / 1000), and without
guidance. Weights and shift belong together; `{shift_folder}/scheduler_config.json` has the shift
too, as `shifted_timestep`.

One step, with diffusers alone:

```python
import torch
from diffusers import StableDiffusionXLPipeline

folder = "."  # this folder; from the hub: huggingface_hub.snapshot_download("owner/name")
pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.{dtype})
image = pipe("a lighthouse at dawn", timesteps=[{one_step}], guidance_scale=0).images[0]
```

One to four steps, with the scheduler in `{shift_folder}/`:

```python
import sys

sys.path.insert(0, f"{{folder}}/{shift_folder}")
from timestep_shift_lcm import TimestepShiftLCMScheduler

pipe.scheduler = TimestepShiftLCMScheduler.from_pretrained(folder, subfolder="{shift_folder}")
image = pipe("a lighthouse at dawn", num_inference_steps=4, guidance_scale=0).images[0]
```
"""

REMOTE = """\
# A Stable Diffusion XL model for one to four steps

Made with distillkit. The UNet is run at a shifted timestep, floor(t * {shift} / 1000), and without
guidance. The scheduler that shifts it is in `scheduler/`; diffusers runs this code with
`trust_remote_code=True`.

```python
import torch
from diffusers import DiffusionPipeline

folder = "."  # this folder; from the hub: huggingface_hub.snapshot_download("owner/name")
pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.{dtype}, trust_remote_code=True)
image = pipe("a lighthouse at dawn", num_inference_steps=4, guidance_scale=0).images[0]
```
"""


def front_matter(**parameters: Any) -> str:
    """Of a page about a text-to-image model that is drawn without guidance: what the hub reads.

    `parameters`: of a pipeline's call, beside `guidance_scale`.
    """
    from huggingface_hub import ModelCardData

    call = {"guidance_scale": 0} | parameters
    data = ModelCardData(
        library_name="diffusers", pipeline_tag="text-to-image", inference={"parameters": call}
    )
    return f"---\n{data.to_yaml()}\n---\n"


def publish_pipeline(
    pipe: Any, unet: Any, folder: Path, *, stock: Any, shifted: Any, remote_code: bool = False
) -> None:
    """Write `pipe` with `unet` for its own, in that UNet's number format; whole or not at all.

    `stock` is the pipeline's scheduler, `shifted` our timestep-shifted one, which is written beside
    it. With `remote_code` the shifted one is the pipeline's: diffusers runs it for users who load
    with `trust_remote_code=True`. An earlier publication is replaced; a folder with other files is
    a `UserError`.
    """
    with published(folder) as temporary:
        _write_pipeline(pipe, unet, stock, temporary)
        _write_shifted(shifted, temporary, remote_code)
        shifted.set_timesteps(1)
        page = (REMOTE if remote_code else README).format(
            shift=shifted.config.shifted_timestep,
            shift_folder=SHIFT_FOLDER,
            dtype=str(unet.dtype).removeprefix("torch."),
            one_step=int(shifted.timesteps[0]),
        )
        call: dict[str, Any] = {"num_inference_steps": 4}
        if not remote_code:
            call = {"num_inference_steps": 1, "timesteps": [int(shifted.timesteps[0])]}
        (temporary / "README.md").write_text(front_matter(**call) + page, encoding="utf-8")


def _write_pipeline(pipe: Any, unet: Any, scheduler: Any, folder: Path) -> None:
    with no_progress_bars():
        whole = type(pipe)(
            **{**pipe.components, "unet": unet, "scheduler": scheduler},
            force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
        whole.save_pretrained(folder, safe_serialization=True)
    _restore_prefix(folder / "text_encoder" / "model.safetensors")


def _write_shifted(shifted: Any, folder: Path, remote_code: bool) -> None:
    for subfolder in (SHIFT_FOLDER, "scheduler") if remote_code else (SHIFT_FOLDER,):
        shifted.save_pretrained(folder / subfolder)
        shutil.copy(getfile(type(shifted)), folder / subfolder)
    if remote_code:
        # diffusers looks for `scheduler/timestep_shift_lcm.py` where the index names that module.
        index = folder / "model_index.json"
        components = json.loads(index.read_text(encoding="utf-8"))
        components["scheduler"] = ["timestep_shift_lcm", type(shifted).__name__]
        index.write_text(json.dumps(components, indent=2) + "\n", encoding="utf-8")


def _restore_prefix(path: Path) -> None:
    """Give CLIPTextModel's keys the `text_model.` that transformers 5.6 and later drop."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    save_file({old_clip_name(name): w for name, w in weights.items()}, path, {"format": "pt"})
