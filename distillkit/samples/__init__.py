"""Training samples by id: their order, the pairs (x_T, teacher's x_0), their cache on disk."""
