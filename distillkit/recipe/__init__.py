"""Recipes: the schema, reading YAML with overrides, errors with their line, and what editors need."""
