"""Weights that students of this world start from: distilled from the shipped teacher."""
