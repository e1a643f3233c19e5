"""The SDXL family: teachers, the UNet-encoder backbone, UNet students, and their files.

Reading order: configs (what recipes set), teacher, denoiser, solvers, backbone, student, lora_unet.
Two rooms: `io` reads and writes diffusers' pipelines and files of weights, and knows nothing of
distillation; `export` writes finished students for other software. Modules here import `io`,
`export` imports both, and `plugin` registers everything.
"""
