"""Published Stable Diffusion 3 models as teachers, with their authors' settings. Needs no torch.

Source: the models' cards. Fields beside `preset` override these.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "sd3.5-medium": {
        "model": "stabilityai/stable-diffusion-3.5-medium",
        "steps": 40,
        "guidance": 4.5,
    },
    "sd3.5-large": {
        "model": "stabilityai/stable-diffusion-3.5-large",
        "steps": 28,
        "guidance": 3.5,
    },
    # Distilled with LADD: no guidance.
    "sd3.5-large-turbo": {
        "model": "stabilityai/stable-diffusion-3.5-large-turbo",
        "steps": 4,
        "guidance": 0.0,
    },
}
