"""distillkit: distil a slow diffusion model into one that needs one to four steps."""

__version__ = "0.1.0"
