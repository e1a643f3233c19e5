"""LADD (Sauer et al. 2024, "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
Distillation"): discriminator heads on teacher features at continuous noise levels, one a level.
"""
