"""The Stable Diffusion 3 family: flow matching by a transformer (MMDiT) on latents that are maps.

Reading order: family, configs (what recipes set), teacher, denoiser, backbone.
"""
