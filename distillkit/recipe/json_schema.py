"""The JSON schema of recipes, with every installed part, for editors that complete and check.

Built when it is asked for: a part's field is a `oneOf` over what is registered at that moment.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from distillkit.recipe.schema import Recipe
from distillkit.registry.registry import Registry


def recipe_schema(registry: Registry) -> str:
    """The schema as JSON text, draft 2020-12."""

    class WithParts(GenerateJsonSchema):
        """Knows what may stand in a `Part` field."""

        def function_plain_schema(
            self, schema: core_schema.PlainValidatorFunctionSchema
        ) -> JsonSchemaValue:
            socket = (schema.get("metadata") or {}).get("socket")
            if socket is None:
                return super().function_plain_schema(schema)
            entries = [entry for entry in registry.entries() if entry.socket == socket]
            part = {"oneOf": [self._named(entry.config) for entry in entries]}
            if (schema.get("metadata") or {}).get("many"):
                return {"anyOf": [part, {"type": "array", "items": part}, {"type": "null"}]}
            return part

        def _named(self, config: Any) -> JsonSchemaValue:
            """A part; a recipe has to say its `type`, though the config has a default."""
            inner = self.generate_inner(config.__pydantic_core_schema__)
            return {**inner, "required": sorted({"type", *inner.get("required", ())})}

    schema = Recipe.model_json_schema(schema_generator=WithParts)
    schema = {"$schema": WithParts.schema_dialect, **schema, "title": "distillkit recipe"}
    return json.dumps(schema, indent=1) + "\n"
