"""Numbered training samples: their order, the pairs (x_T, teacher's x_0), and their cache on disk."""
