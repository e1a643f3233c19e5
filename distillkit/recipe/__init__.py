"""Recipes: the schema, YAML with overrides, errors with their line, what editors need."""
