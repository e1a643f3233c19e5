"""Every extension point of distillkit. A plugin implements the hooks it has parts for.

Each hook but the last returns config classes (`distillkit.configs`): pydantic models whose `type`
is the part's name in recipes and whose `build` makes it. What `build` must return stands in
`distillkit.contracts`, and for exporters and layouts in `distillkit.exchange`. Register the module
that holds your hooks in your package:

    [project.entry-points.distillkit]
    mything = "distillkit_mything.plugin"
"""

from __future__ import annotations

from pathlib import Path

import pluggy

from distillkit.configs import (
    BackboneConfig,
    ExporterConfig,
    LayoutConfig,
    LossConfig,
    MetricsConfig,
    PoolConfig,
    PromptsConfig,
    RefinementConfig,
    RefreshConfig,
    StudentConfig,
    TeacherConfig,
)

hookspec = pluggy.HookspecMarker("distillkit")
hookimpl = pluggy.HookimplMarker("distillkit")


@hookspec
def distillkit_register_teachers() -> list[type[TeacherConfig]]:  # type: ignore[empty-body]
    """Slow models to distil: encode prompts, sample x_0 from x_T, decode pictures."""


@hookspec
def distillkit_register_students() -> list[type[StudentConfig]]:  # type: ignore[empty-body]
    """Networks that learn: where their weights start, what of them trains, how to publish them."""


@hookspec
def distillkit_register_backbones() -> list[type[BackboneConfig]]:  # type: ignore[empty-body]
    """Feature extractors for the critics: noisy latents -> one map a level."""


@hookspec
def distillkit_register_pools() -> list[type[PoolConfig]]:  # type: ignore[empty-body]
    """Discriminator-pool strategies: which heads there are, and who judges in an iteration."""


@hookspec
def distillkit_register_refreshes() -> list[type[RefreshConfig]]:  # type: ignore[empty-body]
    """Refresh policies: which heads are replaced by new ones after an iteration."""


@hookspec
def distillkit_register_losses() -> list[type[LossConfig]]:  # type: ignore[empty-body]
    """Loss objectives: what the critics and the student minimise."""


@hookspec
def distillkit_register_refinements() -> list[type[RefinementConfig]]:  # type: ignore[empty-body]
    """Refinement schedules: how many steps the student's roll-out has, and when."""


@hookspec
def distillkit_register_prompts() -> list[type[PromptsConfig]]:  # type: ignore[empty-body]
    """Prompt sources: any sequence of strings."""


@hookspec
def distillkit_register_metrics() -> list[type[MetricsConfig]]:  # type: ignore[empty-body]
    """Metrics of a finished student's pictures beside its teacher's."""


@hookspec
def distillkit_register_exporters() -> list[type[ExporterConfig]]:  # type: ignore[empty-body]
    """File formats in which a finished student is exported, for other software."""


@hookspec
def distillkit_register_layouts() -> list[type[LayoutConfig]]:  # type: ignore[empty-body]
    """How a model family names its tensors in files."""


@hookspec
def distillkit_register_recipes() -> list[Path]:  # type: ignore[empty-body]
    """Recipes to run: YAML files, or folders that hold them; a file's name is its recipe's."""
