"""Metrics of text-to-image models that others publish too, with weights from this machine."""
