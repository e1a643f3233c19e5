"""Contract checks for plugins: one line a part, in any test framework.

    from distillkit import testing

    def test_the_plugin():
        testing.check_plugin("distillkit_mything.plugin")

    def test_the_contract():
        testing.check(MyPool(copies=3))

    def test_a_run():
        testing.check_run(MyPool(copies=3))

`check` builds a part and holds it to what `distillkit.contracts` promises of its socket: shapes,
dtypes, determinism from a generator, frozen stays frozen, where gradients go, a picture by itself,
save and load, a plan. `check_run` trains a few iterations of an 8x8 world with it. Each tells
everything that is wrong at once, in an AssertionError with a sentence a rule; what a part raises is
one of them. The other parts are `distillkit.examples`, unless you name your own.
"""

from distillkit.testing.parts import check
from distillkit.testing.plugins import check_plugin
from distillkit.testing.runs import check_run, recipe

__all__ = ["check", "check_plugin", "check_run", "recipe"]
