"""The FLUX.2 family (klein): flow matching by a transformer of double and single blocks.

The network takes tokens; latents are maps of them, one cell a token. Reading order: family, configs
(what recipes set), teacher, denoiser, backbone.
"""
