"""DMD2 (Yin et al. 2024, "Improved Distribution Matching Distillation"): a loss that owns a
trainable fake score; combine it with any adversarial loss for the method's GAN term."""
