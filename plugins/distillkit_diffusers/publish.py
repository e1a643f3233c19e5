"""A student as a folder that stock diffusers loads, with its timestep shift in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distillkit.atomic import appearing
from distillkit.errors import UserError
from distillkit_diffusers.layout import old_clip_name
from distillkit_diffusers.loading import quiet
from distillkit_diffusers.solvers import scheduler_of

STEPS = 4
"""Places on the grid of a roll-out; LCM calls them original inference steps."""
SHIFT_FOLDER = "scheduler_shift"

README = """\
# A Stable Diffusion XL model for one to four steps

Made with distillkit. The UNet is run at a shifted timestep, floor(t * {shift} / 1000), and without
guidance. Weights and shift belong together: the shift also stands in
`{shift_folder}/scheduler_config.json` as `shifted_timestep`.

One step, with diffusers alone:

```python
import torch
from diffusers import StableDiffusionXLPipeline

folder = "."  # this folder
pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.{dtype})
image = pipe("a lighthouse at dawn", timesteps=[{one_step}], guidance_scale=0).images[0]
```

One to four steps, with the scheduler that lies beside the weights:

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
guidance. The scheduler that does it lies in `scheduler/`; diffusers runs it where it is trusted.

```python
import torch
from diffusers import DiffusionPipeline

folder = "."  # this folder
pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.{dtype}, trust_remote_code=True)
image = pipe("a lighthouse at dawn", num_inference_steps=4, guidance_scale=0).images[0]
```
"""

COMFY = """\
{name}: timestep shift {shift}. Weights and shift belong together.

ComfyUI: put the file into models/{folder}. The model goes through a timestep-shift node (custom
node ComfyUI-TimestepShiftModel) with shifted_timestep {shift}, then into a KSampler: sampler lcm,
1 to 4 steps, cfg 1.

diffusers: one step with the stock LCMScheduler: timesteps=[{one_step}], guidance_scale=0. For two
to four steps take the scheduler that `distillkit export RUN --to diffusers` puts into its folder.
"""


def publish_pipeline(
    pipe: Any, unet: Any, folder: Path, shift: int, remote_code: bool = False
) -> None:
    """Write `pipe` with `unet` as its UNet, in the UNet's number format; whole or not at all.

    Its scheduler is the stock one, or with `remote_code` ours, which diffusers runs for those who
    load with `trust_remote_code=True`. An earlier publication in the same folder is replaced; any
    other folder is left alone.
    """
    folder = Path(folder)
    ours = (folder / "model_index.json").is_file()
    if folder.exists() and not ours and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something else than a pipeline; name another folder")
    with appearing(folder) as part:
        part.mkdir()
        try:
            _write(pipe, unet, part, shift, remote_code)
        except SafetensorError as error:  # the library's way to report a full disk
            raise OSError(str(error)) from error


def shift_page(name: str, folder: str, shift: int) -> str:
    """How to run a file whose software knows nothing of the shift. `folder`: ComfyUI's."""
    return COMFY.format(name=name, folder=folder, shift=shift, one_step=999 * shift // 1000)


def _write(pipe: Any, unet: Any, folder: Path, shift: int, remote_code: bool) -> None:
    from diffusers import LCMScheduler

    from distillkit_diffusers import timestep_shift_lcm

    base = pipe.scheduler.config
    stock = scheduler_of(LCMScheduler, base, original_inference_steps=STEPS)
    shifted = scheduler_of(
        timestep_shift_lcm.TimestepShiftLCMScheduler,
        base,
        original_inference_steps=STEPS,
        shifted_timestep=shift,
    )
    parts = {**pipe.components, "unet": unet, "scheduler": stock}
    with quiet():
        published = type(pipe)(
            **parts,
            force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
        published.save_pretrained(folder, safe_serialization=True)
    _restore_prefix(folder / "text_encoder" / "model.safetensors")
    for place in (SHIFT_FOLDER, "scheduler") if remote_code else (SHIFT_FOLDER,):
        shifted.save_pretrained(folder / place)
        shutil.copy(timestep_shift_lcm.__file__, folder / place)
    if remote_code:
        _name_our_scheduler(folder / "model_index.json")
    shifted.set_timesteps(1)
    page = (REMOTE if remote_code else README).format(
        shift=shift,
        shift_folder=SHIFT_FOLDER,
        dtype=str(unet.dtype).removeprefix("torch."),
        one_step=int(shifted.timesteps[0]),
    )
    (folder / "README.md").write_text(page, encoding="utf-8")


def _name_our_scheduler(index: Path) -> None:
    """Diffusers looks for `scheduler/timestep_shift_lcm.py` where the index says this."""
    parts = json.loads(index.read_text(encoding="utf-8"))
    parts["scheduler"] = ["timestep_shift_lcm", "TimestepShiftLCMScheduler"]
    index.write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")


def _restore_prefix(path: Path) -> None:
    """Give CLIPTextModel's keys the `text_model.` that transformers 5.6 and later leave out."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    save_file({old_clip_name(name): w for name, w in weights.items()}, path, {"format": "pt"})
