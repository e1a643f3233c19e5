"""DMD2 (Yin et al. 2024, "Improved Distribution Matching Distillation for Fast Image Synthesis"):
a loss with a trainable fake score. Any adversarial loss beside it is the method's GAN term.
"""
