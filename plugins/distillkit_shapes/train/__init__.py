"""How the shipped weights were made; see `python -m distillkit_shapes.train --help`."""
