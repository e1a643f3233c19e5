"""Views (section 3.4): the whole picture or a crop of it, with the prompt or without.

The paper uses three of the four views: global-cond, local-cond, local-uncond. Unconditional local
heads do not know the prompt, so they judge coherence alone; they act against Janus artefacts.
"""

from __future__ import annotations

from distillkit.errors import did_you_mean
from distillkit.values import View

NAMES = ("global-cond", "global-uncond", "local-cond", "local-uncond")
"""Every view that a recipe can name."""


def check_name(name: str) -> str:
    """The name unchanged, if there is such a view. Raises ValueError with the names there are."""
    if name in NAMES:
        return name
    hint = did_you_mean(name, NAMES)
    raise ValueError(f"there is no view '{name}';{hint} views are {', '.join(NAMES)}")


def make_view(name: str, crop: float) -> View:
    """The view of that name. `crop`: side of a local view as a fraction of the latent's side."""
    scale, condition = check_name(name).split("-")
    return View(name, crop=crop if scale == "local" else 1.0, conditional=condition == "cond")


def compares_prompt(view: View) -> bool:
    """Whether a head of the view may get the pooled prompt: of a crop it says too much."""
    return view.conditional and view.crop == 1
