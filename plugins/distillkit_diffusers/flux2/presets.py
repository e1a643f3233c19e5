"""Published FLUX.2 klein models as teachers, with their authors' settings. Needs no torch.

Source: the models' cards. Fields beside `preset` override these.
"""

from __future__ import annotations

from typing import Any

OWNER = "black-forest-labs"
PRESETS: dict[str, dict[str, Any]] = {
    "klein-base-4b": {"model": f"{OWNER}/FLUX.2-klein-base-4B", "steps": 50, "guidance": 4.0},
    "klein-base-9b": {"model": f"{OWNER}/FLUX.2-klein-base-9B", "steps": 50, "guidance": 4.0},
    # Distilled to four steps, with their guidance.
    "klein-4b": {"model": f"{OWNER}/FLUX.2-klein-4B", "steps": 4, "guidance": 0.0},
    "klein-9b": {"model": f"{OWNER}/FLUX.2-klein-9B", "steps": 4, "guidance": 0.0},
}
