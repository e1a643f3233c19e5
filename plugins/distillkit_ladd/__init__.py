"""LADD (Sauer et al. 2024, "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
Distillation"): teacher features at continuous noise levels, one head a level, nothing refreshed."""
