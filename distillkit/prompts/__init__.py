"""Prompt sources that the core brings: files, tables, and the filter that they share."""
