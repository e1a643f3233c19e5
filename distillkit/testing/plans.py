"""Contract of all that runs on the device: `distillkit plan` runs it too, without values."""

from __future__ import annotations

from distillkit.errors import UserError
from distillkit.memory.dry_run import NO_VALUES, ONE_DEVICE, dry_run
from distillkit.recipe.schema import Recipe
from distillkit.testing.findings import Findings, told
from distillkit.training.guard import PartError


def plan_findings(recipe: Recipe) -> Findings:
    """What a dry run of the recipe fails with."""
    try:
        dry_run(recipe)
    except Exception as error:
        cause, said = error.__cause__, str(error)
        if isinstance(error, PartError) and isinstance(cause, Exception):
            # The core names part and call; here the line is the part's, and not one of torch's.
            rule = next((f". {r}" for r in (NO_VALUES, ONE_DEVICE) if said.endswith(r)), "")
            yield f"plan: {said.partition(f': {type(cause).__name__}: ')[0]}: {told(cause)}{rule}"
        else:
            yield f"plan: {said if isinstance(error, UserError) else told(error)}"
