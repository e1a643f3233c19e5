"""Families of diffusers' models: teachers, backbones for critics, students, and their files.

SDXL, in this order: configs (what recipes set), teacher, denoiser, solvers, backbone, student,
lora_twin.
The room `sd3` has the Stable Diffusion 3 family.
Two more: `io` reads and writes diffusers' pipelines and files of weights, and knows nothing of
distillation; `export` writes finished students for other software. Modules here import `io`,
`export` imports both, and `plugin` registers everything.
"""
