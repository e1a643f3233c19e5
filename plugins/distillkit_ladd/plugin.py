"""The name that LADD adds to recipes: a pool. Backbone, loss and student are other plugins'."""

from __future__ import annotations

from distillkit.configs import PoolConfig
from distillkit.hookspecs import hookimpl
from distillkit_ladd.pool import ContinuousPoolConfig


@hookimpl
def distillkit_register_pools() -> list[type[PoolConfig]]:
    return [ContinuousPoolConfig]
