"""Families of diffusers' models: teachers, backbones for critics, students, and their files.

SDXL, in this order: configs (what recipes set), teacher, denoiser, solvers, backbone, student,
lora_twin.
Transformers that predict a flow: `flow` has what they share; `sd3`, `z_image` and `flux2` have what
each family says; `common` is for all.
Two more rooms: `io` reads and writes diffusers' pipelines and files of weights, and knows nothing
of distillation; `export` writes finished students for other software. Modules here import `io`,
`export` imports both, and `plugin` registers everything.
"""

import logging

# Where bitsandbytes is installed, diffusers imports it, and it tells every command that a kernel
# for 4-bit networks on CPUs is missing: nothing that a user of this plugin could want.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
