"""A student as a folder that stock diffusers loads, with its timestep shift in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from distillkit.errors import UserError
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


def publish_pipeline(pipe: Any, module: Any, dtype: Any, folder: Path, shift: int) -> None:
    """Write `pipe` with `module` as its UNet, in `dtype`, to `folder`; whole or not at all.

    An earlier publication in the same folder is replaced; any other folder is left alone.
    """
    folder = Path(folder)
    ours = (folder / "model_index.json").is_file()
    if folder.exists() and not ours and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something else than a pipeline; name another folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write(pipe, module, dtype, part, shift)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(pipe: Any, module: Any, dtype: Any, folder: Path, shift: int) -> None:
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
    parts = {**pipe.components, "unet": _copy(module, dtype), "scheduler": stock}
    with quiet():
        published = type(pipe)(
            **parts,
            force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
        published.save_pretrained(folder, safe_serialization=True)
    _restore_prefix(folder / "text_encoder" / "model.safetensors")
    shifted.save_pretrained(folder / SHIFT_FOLDER)
    shutil.copy(timestep_shift_lcm.__file__, folder / SHIFT_FOLDER)
    shifted.set_timesteps(1)
    page = README.format(
        shift=shift,
        shift_folder=SHIFT_FOLDER,
        dtype=str(dtype).removeprefix("torch."),
        one_step=int(shifted.timesteps[0]),
    )
    (folder / "README.md").write_text(page, encoding="utf-8")


def _copy(module: Any, dtype: Any) -> Any:
    """The UNet on the CPU in `dtype`, out of the wrappers that training put around it."""
    from accelerate.utils import extract_model_from_parallel

    unet = extract_model_from_parallel(module)
    with torch.device("meta"):
        twin = type(unet).from_config(unet.config)
    weights = {name: w.detach().to("cpu", dtype) for name, w in unet.state_dict().items()}
    twin.load_state_dict(weights, assign=True)
    return twin


def _restore_prefix(path: Path) -> None:
    """Give CLIPTextModel's keys the `text_model.` that transformers 5.6 and later leave out."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    if any(name.startswith("text_model.") for name in weights):
        return
    save_file({f"text_model.{name}": w for name, w in weights.items()}, path, {"format": "pt"})
