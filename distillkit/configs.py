"""One base class a socket: what a plugin author subclasses.

A config is the part's entry in a recipe. Its `type` is the name that recipes use, its fields are
the part's parameters, its `build` makes the part. Importing a config must not import torch:
`build` does that. A subclass looks like this:

    class RandomRefreshConfig(RefreshConfig):
        '''Replace a random share of the heads.'''

        type: Literal["random"] = "random"
        fraction: float = Field(0.01, ge=0, le=1)
        '''Share of the pool that is replaced each time.'''

        def build(self) -> Refresh: ...
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from distillkit.remarks import LevelInputs, NumbersAreNumbers, PoolSize, Remark, grid, rising

if TYPE_CHECKING:
    from distillkit import contracts, exchange

LEVELS = (999, 749, 499, 249)
"""Noise levels of a roll-out of four steps, where a student has no others."""
Level = Annotated[int | float, Field(ge=0, le=999)]
Levels = Annotated[tuple[Level, ...], AfterValidator(grid)]
RollOuts = Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], AfterValidator(rising)]
Sampler = Literal["renoise", "euler"]


class Config(NumbersAreNumbers):
    """A part of a recipe: unknown keys are errors, values do not change, docstrings document."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _describe_type(schema: dict[str, Any]) -> None:
    """Subclasses write their `type` anew and without a line under it."""
    schema["properties"]["type"].setdefault("description", "Name of the part.")


class ComponentConfig(Config):
    """A part that plugins bring. `type` names it; subclasses narrow it to one literal."""

    model_config = ConfigDict(json_schema_extra=_describe_type)
    socket: ClassVar[str]
    type: Any
    """Name of the part, as `distillkit plugins list` shows it."""
    saves_memory: ClassVar[Mapping[str, Any]] = {}
    """Fields that save memory, with the values that do, in the order for `distillkit plan`."""
    trains_less: ClassVar[Mapping[str, Any]] = {}
    """The same for fields that let less of the network train: they are tried last."""
    same_result: ClassVar[Collection[str]] = ()
    """Fields on which neither cached samples nor a row's figures depend, such as a batch's size."""

    @classmethod
    def name(cls) -> str:
        """The one value that `type` takes."""
        return str(cls.model_fields["type"].default)

    def outline(self, *args: Any) -> Any:
        """What `build` makes of the same arguments, in true size, for `distillkit plan`.

        It reads no weights: networks may be on torch's meta device, where tensors have no data.
        Without a method of its own a part is built as it is and moved there. A teacher may have
        `offloaded()`: networks in main memory, on the device only during its calls.
        """
        return self.build(*args)  # type: ignore[attr-defined]

    def needs_null(self) -> bool:
        """Whether the part needs the teacher's unconditional condition, where the fields tell it:
        for a teacher without one (`TeacherConfig.has_null`) it is refused before a run starts."""
        return False

    def derived_from(self) -> Iterable[str]:
        """Models that a student made with this part derives from, as recipes name them: paths,
        `package:NAME/inside/it`, or owner/name and owner/name/file on the hub. A model card names
        them, and looks for their licences."""
        return ()

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        """What this machine or the recipe's other parts will not do for this part: a file that is
        missing, a level that the backbone has not. `recipe` is the whole `Recipe`.

        `check`, `plan`, `precompute` and `run` ask before anything is built, so it must be quick:
        it downloads nothing, reads no weights and imports neither torch nor diffusers.
        """
        return ()


class TeacherConfig(ComponentConfig):
    """The slow model that is distilled."""

    socket: ClassVar[str] = "teacher"
    same_latents: ClassVar[Collection[str]] = ()
    """Fields of how latents are decoded: figures depend on them, and no latents, cached or not."""

    @property
    def has_null(self) -> bool:
        """Whether the teacher has an unconditional condition; a model that was distilled with its
        guidance has none, and its `null` returns None."""
        return True

    def build(self) -> contracts.Teacher:
        raise NotImplementedError


class StudentConfig(ComponentConfig):
    """The network that learns to draw in one to four steps."""

    socket: ClassVar[str] = "student"
    timestep_shift: int = Field(1000, ge=1, le=1000)
    """The student is run at floor(t * shift / 1000); 1000 is no shift."""
    levels: Levels = Field(LEVELS, min_length=4)
    """Noise levels that a roll-out of as many steps visits, falling; shorter ones skip some,
    evenly. Fractions are levels between two."""
    sampler: Sampler = "renoise"
    """Between steps: `renoise` adds fresh noise to x_0-hat, as consistency models do; `euler` steps
    along the flow, with the noise that the network sees (DDIM's step on other schedules)."""
    gradient_steps: int = Field(1, ge=1, le=4)
    """How many of a roll-out's last steps the student's gradient reaches. Each more keeps another
    step's activations."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the running average of the weights that is published, reached as the run gets older;
    0 publishes the last weights."""

    @property
    def can_shard(self) -> bool:
        """Whether the network may be cut up over processes: all that it runs with are parameters
        of its module, each in one place."""
        return True

    def build(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        raise NotImplementedError


class BackboneConfig(ComponentConfig):
    """The feature extractor that the critics' heads sit on."""

    socket: ClassVar[str] = "backbone"

    def level_channels(self, teacher: TeacherConfig) -> tuple[int, ...] | None:
        """Channels of each level for that teacher, where configs tell them without building."""
        return None

    def level_inputs(self, teacher: TeacherConfig) -> tuple[LevelInputs, ...] | None:
        """What each level's map hears of prompt and t*, where configs tell it, for `check`."""
        return None

    def pooled_channels(self, teacher: TeacherConfig) -> int | None:
        """Channels of the pooled prompt for that teacher: 0 is none, None where nothing tells."""
        return None

    def build(self, teacher: contracts.Teacher) -> contracts.Backbone:
        raise NotImplementedError


class PoolConfig(ComponentConfig):
    """A pool of discriminator heads, and how a panel is drawn from it."""

    socket: ClassVar[str] = "pool"

    def draw_chance(self) -> float | None:
        """Chance of a head to be drawn in an iteration, where the fields tell it: with the refresh
        policy's it tells how often a head is trained in its life."""
        return None

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize | None:
        """Heads, and their parameters, on levels of these channels, where the fields tell them:
        `check` refuses a pool that no machine could hold."""
        return None

    @property
    def sees_prompt(self) -> bool:
        """Whether some heads get the pooled prompt: then `build` and `outline` get the number of
        its channels as a third argument, which a backbone without `pooled` has not."""
        return False

    def build(self, channels: tuple[int, ...], seed: int) -> contracts.Pool:
        """`channels`: of the backbone's levels. `seed`: of the heads' first weights."""
        raise NotImplementedError


class RefreshConfig(ComponentConfig):
    """Which heads of the pool are replaced, and when."""

    socket: ClassVar[str] = "refresh"

    def reset_chance(self, draw_chance: float) -> float | None:
        """Chance of a head to be reset after an iteration, where the fields tell it."""
        return None

    def build(self) -> contracts.Refresh:
        raise NotImplementedError


class LossConfig(ComponentConfig):
    """A term of the players' losses."""

    socket: ClassVar[str] = "loss"
    paired: ClassVar[bool] = False
    """Whether it compares each picture with the teacher's of the same x_T."""
    uses_critics: ClassVar[bool | None] = None
    """Whether it asks critics; False: no, nor has it networks of its own; None: it can't tell."""
    weight: float = Field(1.0, ge=0)
    """Factor of this term in both players' sums."""
    ramp: int = Field(0, ge=0)
    """Joint iterations over which the student's weight rises linearly from 0, the critics' not."""
    steps: RollOuts = ()
    """Lengths of the roll-outs in which it trains; none is all of them."""

    def build(
        self, teacher: contracts.Teacher, student: contracts.StudentNetwork
    ) -> contracts.Loss:
        raise NotImplementedError


class RefinementConfig(ComponentConfig):
    """How long a roll-out the student trains, iteration by iteration."""

    socket: ClassVar[str] = "refinement"

    def build(self) -> contracts.Refinement:
        raise NotImplementedError


class PromptsConfig(ComponentConfig):
    """Where the prompts come from."""

    socket: ClassVar[str] = "prompts"

    def build(self) -> contracts.PromptSource:
        raise NotImplementedError


class MetricsConfig(ComponentConfig):
    """Figures that judge the finished student."""

    socket: ClassVar[str] = "metrics"
    same_result: ClassVar[Collection[str]] = ("steps",)
    num_images: int = Field(2000, ge=2)
    """Pictures behind every row of the metrics' table."""
    steps: RollOuts = Field((1, 2, 4), min_length=1)
    """Lengths of the roll-outs by which the finished student is judged: a row each."""
    seed: int = Field(1_000_003, ge=0)
    """Seed of the prompts and noise that are evaluated; another than training's."""

    @property
    def needs_teacher(self) -> bool:
        """Whether it can't judge pictures without the teacher's of the same prompts."""
        return True

    def inputs(self) -> Iterable[str]:
        """Paths of files and folders whose content changes its values: real pictures, weights."""
        return ()

    def build(self) -> contracts.Metrics:
        raise NotImplementedError


class ExporterConfig(ComponentConfig):
    """A form that a finished student leaves in: `distillkit export RUN --to NAME`."""

    socket: ClassVar[str] = "exporter"

    def build(self) -> exchange.Exporter:
        raise NotImplementedError


class LayoutConfig(ComponentConfig):
    """How a model family names its tensors in files: for `distillkit adapt`."""

    socket: ClassVar[str] = "layout"

    def build(self) -> exchange.Layout:
        raise NotImplementedError


SOCKETS: tuple[type[ComponentConfig], ...] = (
    TeacherConfig,
    StudentConfig,
    BackboneConfig,
    PoolConfig,
    RefreshConfig,
    LossConfig,
    RefinementConfig,
    PromptsConfig,
    MetricsConfig,
    ExporterConfig,
    LayoutConfig,
)
"""Every socket: those of a recipe in its order, then those of the commands around it."""
