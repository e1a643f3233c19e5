"""The page beside an exported file: how diffusers and ComfyUI draw with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distillkit.configs import LEVELS
from distillkit_diffusers.export.comfyui import FOLDERS, Kind
from distillkit_diffusers.flow.publish import BETWEEN, in_call, not_loaded, stock_sigmas
from distillkit_diffusers.io.hub import Asset, is_checkpoint
from distillkit_diffusers.io.model_configs import local_path
from distillkit_diffusers.io.prediction import Prediction
from distillkit_diffusers.io.publish import front_matter

if TYPE_CHECKING:
    from distillkit_diffusers.flow.teacher import FlowTeacher

HUB = "https://huggingface.co"
"""diffusers reads one file of a hub's repository by its address."""
UNTRIED = "It has the published names of nodes and inputs; it was not tried inside ComfyUI."

SDXL = """\
# {name}

{told} Weights and shift belong together. Noise levels, and the
timesteps at which the UNet is run, by the number of steps:

| steps | noise | UNet at |
| :--- | :--- | :--- |
{grids}

diffusers alone, one step:

```python
import torch
from diffusers import LCMScheduler, StableDiffusionXLPipeline

{load}
pipe.scheduler = LCMScheduler.from_config({config})
image = pipe("a lighthouse at dawn", timesteps=[{one_step}], guidance_scale=0).images[0]
```

For two to four steps take the scheduler that `distillkit export RUN --to diffusers` writes into its
folder.

ComfyUI: the file belongs into models/{folder}; {workflow} is a workflow in its API format. {node},
then a KSampler: sampler lcm, scheduler simple, 1, 2 or 4 steps, cfg 1. {untried}
"""
SHIFTED = (
    "The model goes through a timestep-shift node (custom node ComfyUI-TimestepShiftModel) with "
    "shifted_timestep {shift}"
)
PLAIN = "Its plain noise levels are right, and no other node is needed"
TOLD = "Timestep shift {shift}, no guidance."
PREDICTS = (
    " The UNet predicts `{kind}`{betas};\nwith a scheduler of another prediction it draws wrong "
    "pictures."
)
ZERO_SNR = ", on betas rescaled to zero terminal SNR"
PREDICTED = (
    "The model goes through the node ModelSamplingDiscrete with\nsampling {sampling}, zsnr {zsnr}"
)
CONFIG = """
    pipe.scheduler.config, prediction_type="{prediction_type}",
    rescale_betas_zero_snr={rescale_betas_zero_snr},
"""
SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
LOAD: dict[Kind, str] = {
    "checkpoint": (
        'pipe = StableDiffusionXLPipeline.from_single_file("{name}", dtype=torch.float16)'
    ),
    "unet": """\
{base}
from safetensors.torch import load_file

pipe = StableDiffusionXLPipeline.{reader}(base, dtype=torch.float16)
pipe.unet.load_state_dict(load_file("{name}"))""",
    "lora": """\
{base}
pipe = StableDiffusionXLPipeline.{reader}(base, dtype=torch.float16)
pipe.load_lora_weights(".", weight_name="{name}")""",
}

FLOW = """\
# {name}

{what}, which is then run in 1, 2 or 4 steps without guidance.
`sigmas` are noise levels before the scheduler's shift. {between}

```python
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, {classes}

{base}
{load}
pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift={shift:g}, stochastic_sampling={stochastic})
sigmas = {grids}
image = pipe(prompt="a lighthouse at dawn", {settings}sigmas=sigmas[4], guidance_scale=0).images[0]
```
"""
BASE_ON_HUB = 'base = "{base}"  # or the model that it derives from'
BASE_HERE = 'base = "{base}"  # the {what} of the model that it was made for'
FLOW_LORA = """\
pipe = {pipeline}.from_pretrained(base, dtype=torch.bfloat16{without})
pipe.load_lora_weights(".", weight_name="{name}")"""
FLOW_TRANSFORMER = """\
transformer = {transformer}.from_single_file(
    "{name}", config=base, subfolder="transformer", dtype=torch.bfloat16
)
pipe = {pipeline}.from_pretrained(
    base, transformer=transformer, dtype=torch.bfloat16{without}
)"""
UNET_LOADER = """
ComfyUI: the file belongs into models/diffusion_models, and has the tensors' names of the family's
own files. It was not tried inside ComfyUI.
"""
SD3_COMFYUI = """
ComfyUI: the file belongs into models/loras; {workflow} is a workflow in its API format: KSampler
with sampler {sampler}, scheduler simple, 1, 2 or 4 steps, cfg 1, which has these noise levels.
{text}{untried}
"""
CLIPS_ALONE = """\
It loads no T5. In diffusers {tokens} zeros stand for T5's tokens, which ComfyUI leaves out, so that
pictures differ.
"""


def sdxl_page(
    kind: Kind,
    name: str,
    workflow: str,
    shift: int,
    prediction: Prediction | None = None,
    base: str | None = None,
) -> str:
    """Of a file of the SDXL family. `workflow`: the name of ComfyUI's beside it. `base`: the model
    that it was made for, where that is not SDXL base or a relative which draws as that does."""
    one_step = LEVELS[0] * shift // 1000
    prediction = prediction or Prediction()
    reader = "from_single_file" if is_checkpoint(base) else "from_pretrained"
    config = "pipe.scheduler.config"
    if not prediction.is_usual:
        config = CONFIG.format(**prediction.options)
    page = SDXL.format(
        name=name,
        told=TOLD.format(shift=shift) + _predicts(prediction),
        grids="\n".join(_grid(steps, shift) for steps in range(1, len(LEVELS) + 1)),
        load=LOAD[kind].format(name=name, base=base_line(base, SDXL_BASE), reader=reader),
        config=config,
        one_step=one_step,
        folder=FOLDERS[kind],
        workflow=workflow,
        node=_nodes(shift, prediction),
        untried=UNTRIED,
    )
    return front_matter(num_inference_steps=1, timesteps=[one_step]) + page


def flow_page(
    teacher: FlowTeacher,
    name: str,
    workflow: str | None,
    levels: Sequence[float],
    stochastic: bool,
    base: str | None = None,
) -> str:
    """Of a LoRA of a transformer that predicts a flow. `workflow`: None where there is none for
    ComfyUI. `base`: what it is added to, where that is not the teacher's model."""
    comfyui, family = "", teacher.family
    if workflow is not None:
        sampler = "lcm" if stochastic else "euler"
        tokens = teacher.options.max_tokens
        comfyui = SD3_COMFYUI.format(
            workflow=workflow,
            sampler=sampler,
            text=CLIPS_ALONE.format(tokens=tokens) if teacher.parts_left_out() else "",
            untried=UNTRIED,
        )
    load = FLOW_LORA.format(pipeline=family.pipeline, name=name, without=not_loaded(teacher))
    what = f"A LoRA for a {family.name} model"
    page = _flow(teacher, name, what, family.pipeline, load, levels, stochastic, base)
    return page + comfyui


def transformer_page(
    teacher: FlowTeacher, name: str, levels: Sequence[float], stochastic: bool
) -> str:
    """Of a whole transformer in one file."""
    pipeline, transformer = teacher.family.pipeline, teacher.family.parts["transformer"][1]
    without = not_loaded(teacher)
    load = FLOW_TRANSFORMER.format(
        pipeline=pipeline, transformer=transformer, name=name, without=without
    )
    what, classes = (
        f"The transformer of a {teacher.family.name} model",
        f"{pipeline}, {transformer}",
    )
    return _flow(teacher, name, what, classes, load, levels, stochastic) + UNET_LOADER


def _flow(
    teacher: FlowTeacher,
    name: str,
    what: str,
    classes: str,
    load: str,
    levels: Sequence[float],
    stochastic: bool,
    base: str | None = None,
) -> str:
    grids = {steps: stock_sigmas(levels, steps) for steps in (1, 2, 4)}
    page = FLOW.format(
        name=name,
        what=what,
        classes=classes,
        base=base_line(base or teacher.options.model, next(iter(teacher.family.sizes))),
        load=load,
        settings=in_call(teacher),
        between=BETWEEN[stochastic],
        shift=teacher.shift,
        stochastic=stochastic,
        grids=grids,
    )
    call = teacher.call_settings()
    return front_matter(num_inference_steps=4, sigmas=grids[4], **call) + page


def base_line(model: str | None, known: str) -> str:
    """`base = ...`: the model on the hub, or `known` where none is named. Of a path of this machine
    its last name alone is told."""
    if model is None:
        return BASE_ON_HUB.format(base=known)
    here, single = local_path(model), is_checkpoint(model)
    asset = Asset("base", model, "file" if single else "pipeline")
    if here.exists() or not asset.on_hub:
        what = "file" if single else "folder"
        return BASE_HERE.format(base=here.resolve().name, what=what)
    if single:
        return BASE_ON_HUB.format(base=f"{HUB}/{asset.repo}/blob/main/{asset.files[0]}")
    return BASE_ON_HUB.format(base=model)


def _predicts(prediction: Prediction) -> str:
    """A sentence on what is not SDXL's own, or nothing."""
    if prediction.is_usual:
        return ""
    return PREDICTS.format(kind=prediction.kind, betas=ZERO_SNR * prediction.zero_snr)


def _nodes(shift: int, prediction: Prediction) -> str:
    """Which nodes ComfyUI's model goes through."""
    shifted = SHIFTED.format(shift=shift)
    if prediction.is_usual:
        return PLAIN if shift == 1000 else shifted
    inputs = prediction.comfyui
    said = PREDICTED.format(sampling=inputs["sampling"], zsnr=str(inputs["zsnr"]).lower())
    return said if shift == 1000 else f"{said}. {shifted}"


def _grid(steps: int, shift: int) -> str:
    """`| 2 | 999, 499 | 499, 249 |`."""
    levels = [int(LEVELS[i * len(LEVELS) // steps]) for i in range(steps)]
    noise, run = (", ".join(map(str, ts)) for ts in (levels, [t * shift // 1000 for t in levels]))
    return f"| {steps} | {noise} | {run} |"
