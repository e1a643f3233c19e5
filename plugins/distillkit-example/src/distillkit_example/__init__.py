"""A plugin for distillkit with one part: the refresh policy `round-robin`."""
