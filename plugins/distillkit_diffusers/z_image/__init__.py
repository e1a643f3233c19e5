"""The Z-Image family: flow matching by a single-stream transformer on latents that are maps.

Reading order: family, configs (what recipes set), teacher, denoiser, backbone.
"""
