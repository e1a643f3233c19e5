"""Ways to look at a picture (paper, section 3.4): the whole or a patch, with the prompt or without.

The paper uses three of the four: global-cond, local-cond, local-uncond. Unconditional local heads
know no prompt, so they judge coherence alone; that is what works against Janus artefacts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillkit.errors import did_you_mean

if TYPE_CHECKING:
    from distillkit.values import View

NAMES = ("global-cond", "global-uncond", "local-cond", "local-uncond")
"""Every view that a recipe can name."""


def check_name(name: str) -> str:
    """The name, if there is such a view; otherwise a ValueError that says which there are."""
    if name in NAMES:
        return name
    hint = did_you_mean(name, NAMES)
    raise ValueError(f"there is no view '{name}';{hint} views are {', '.join(NAMES)}")


def view(name: str, crop: float) -> View:
    """The view of that name; `crop` is the side of local ones, as a share of the latent's side."""
    from distillkit.values import View

    scale, told = check_name(name).split("-")
    return View(name, crop=crop if scale == "local" else 1.0, conditional=told == "cond")
