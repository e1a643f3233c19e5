"""Published Z-Image models as teachers, with their authors' settings. Needs no torch.

Source: the models' cards. Fields beside `preset` override these.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "z-image": {"model": "Tongyi-MAI/Z-Image", "steps": 50, "guidance": 4.0},
    # Distilled to eight steps: no guidance.
    "z-image-turbo": {"model": "Tongyi-MAI/Z-Image-Turbo", "steps": 8, "guidance": 0.0},
}
