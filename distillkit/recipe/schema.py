"""A recipe: which parts, with which numbers. The schema; `recipe_file` reads it from YAML."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from distillkit.configs import (
    BackboneConfig,
    ComponentConfig,
    Config,
    LossConfig,
    MetricsConfig,
    PoolConfig,
    PromptsConfig,
    RefinementConfig,
    RefreshConfig,
    StudentConfig,
    TeacherConfig,
)
from distillkit.recipe.part import OneOrMore, Part
from distillkit.remarks import misfit

CriticName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
"""It stands in logs and in names of files."""


class WarmupConfig(Config):
    """What trains alone before both players train together."""

    student: int = Field(0, ge=0)
    """Iterations in which the student alone trains, on `losses`; for a student without one-step
    weights to start from."""
    losses: list[Part[LossConfig]] = []
    """Losses of the student's warm-up."""
    critic: int = Field(0, ge=0)
    """Iterations in which the critics alone train, on the recipe's losses and roll-outs of one
    step; critics whose `steps` leave those out begin untrained."""


class AdamWConfig(Config):
    """AdamW with clipping of the gradient's norm."""

    lr: float = Field(gt=0)
    """Learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.0,
        0.99,
    )
    """Decay of the first and second moments."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, multiplied by lr in each step."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; none leaves it as it is."""
    bits: Literal[32, 8] = 32
    """Bits of each moment. 8 takes a quarter of the memory, by bitsandbytes
    (pip install 'distillkit[8bit]'); tensors with fewer than 4,096 values keep 32."""


class StudentAdamWConfig(AdamWConfig):
    """AdamW for the student, with cosine decay of the learning rate."""

    final_lr_ratio: float = Field(1.0, ge=0, le=1)
    """Final learning rate as a fraction of `lr`, reached by cosine decay over the warm-up, and
    again over the refinement; 1 keeps `lr` constant."""

    def at(self, done: float) -> StudentAdamWConfig:
        """The same with the learning rate after the fraction `done` (0 to 1) of its iterations."""
        left = self.final_lr_ratio + (1 - self.final_lr_ratio) * (1 + math.cos(math.pi * done)) / 2
        return self.model_copy(update={"lr": self.lr * left})


class OptimConfig(Config):
    """The players' optimizers."""

    student: StudentAdamWConfig
    """The student's optimizer."""
    warmup: StudentAdamWConfig | None = None
    """The student's optimizer during its warm-up; none takes `student`."""
    critic: AdamWConfig | None = None
    """The heads' optimizer; none takes `student`, without its decay."""
    aux: AdamWConfig | None = None
    """The optimizer of networks that losses own, and of a backbone that trains, which learn
    beside the heads; none takes `critic`."""
    critic_updates: int = Field(1, ge=1)
    """Critic updates for each update of the student."""
    updates: Literal["simultaneous", "alternating"] = "simultaneous"
    """Whether both players' gradients are taken at the same weights, or the student's after the
    critics' step, from heads that have just learned. Alternating costs one more pass of the drawn
    heads, and none of the backbone; it needs `run.accumulate: 1`, since the maps of every
    micro-batch would have to be kept."""

    @model_validator(mode="after")
    def _bits_agree(self) -> OptimConfig:
        critic = self.critic or self.student
        for field, one, other in (
            ("warmup", self.warmup or self.student, self.student),
            ("aux", self.aux or critic, critic),
        ):
            if one.bits != other.bits:
                beside = "student" if field == "warmup" else "critic"
                raise misfit(
                    f"should be {other.bits}, as in `{beside}`: they share an optimizer",
                    field,
                    "bits",
                )
        return self


class CriticConfig(Config):
    """A critic (discriminator): heads of a pool on the maps of a backbone."""

    backbone: Part[BackboneConfig]
    """Feature maps for the heads."""
    pool: Part[PoolConfig]
    """The heads, and how a panel of them is drawn."""
    refresh: Part[RefreshConfig] | None = None
    """Which heads are re-initialised, and when; none never re-initialises one."""
    steps: tuple[Annotated[int, Field(ge=1, le=4)], ...] = ()
    """Lengths of the roll-outs that it judges; none judges all. Pictures of one step and of four
    differ from the teacher's in other ways, and what a critic learned from the ones misleads the
    student about the others."""


class SamplesConfig(Config):
    """The teacher's samples, which are the real pictures."""

    count: int | None = Field(None, ge=1)
    """Distinct pairs (prompt, x_T, x_0); none never repeats one."""
    cache: str | None = None
    """Folder that keeps the samples; made if it is missing. `package:NAME/folder` lies in an
    installed package. None samples anew each iteration."""
    uses: int = Field(1, ge=1)
    """Iterations that see a sample, each with other t*, crops and noise, and beside other samples.
    Without a cache, sampling can be half of an iteration; it takes 1/n of that with n uses."""
    buffer: int = Field(32, ge=2)
    """For `uses`: iterations whose samples are kept in main memory until they have been used. So
    many iterations sample; the next ones see the same pictures in another order."""
    noise: Literal["teacher", "fresh"] = "teacher"
    """Where the student starts after its warm-up: from the teacher's x_T, or from noise that is
    drawn anew for every picture, so that it can't learn a few thousand samples by heart. Losses
    that compare picture with picture need the teacher's."""
    real: Literal["teacher", "pictures"] = "teacher"
    """What the critics see as real after the student's warm-up: the teacher's samples, or the
    pictures of the prompts' own source (`prompts: {type: image-folder}`), encoded to latents.
    Losses that compare picture with picture need the teacher's."""
    real_cache: str | None = None
    """For `real: pictures`: folder that keeps their latents; None encodes a picture each time."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format in the cache. float16 takes half the disk, and rounds: cached and online runs
    then differ by that."""
    cache_prompt_embeds: bool = False
    """Whether the cache keeps the prompts' embeddings too, so that training encodes none."""
    max_gb: float = Field(50.0, gt=0)
    """Largest size of the cache on disk, in GB; a larger one is refused before it is begun."""
    seed: int = Field(0, ge=0)
    """Seed of the samples; apart from `run.seed`, so that runs of several seeds share a cache."""
    batch: int = Field(64, ge=1)
    """Pictures a call of the teacher while the cache is filled."""


class RunConfig(Config):
    """The loop."""

    batch: int = Field(16, ge=1)
    """Pictures a process and micro-batch."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches an iteration; one iteration is one step of both optimizers."""
    seed: int = Field(0, ge=0)
    """Seed of everything that training draws."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision, as accelerate names it; weights that train stay in float32."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes: a copy of the student on each, or a shard of it (FSDP2)."""
    compile: Literal["inductor", "aot_eager", "eager"] | None = None
    """Backend of torch.compile for student, backbone and teacher: for a long GPU run `inductor`;
    the others to look for errors."""
    offload_heads: bool = False
    """Keep heads and their moments in main memory, and on the device only while they are drawn."""
    offload_ema: bool = False
    """Keep the student's running average in main memory; its update copies the weights there."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of torch; none measures which number is fastest when the run starts."""
    checkpoint_every: int = Field(500, ge=1)
    """Iterations between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1)
    """Checkpoints that are kept."""
    preview_every: int = Field(200, ge=1)
    """Iterations between preview grids."""
    previews: int = Field(6, ge=1)
    """Prompts in a preview grid."""
    held_out: int = Field(8, ge=0)
    """Prompts that training never sees, each with four noises, on which critics and student are
    measured with every preview: how often critics are right there, and how far the student's
    pictures of one prompt differ, beside the teacher's. 0 measures nothing."""
    trackers: list[str] = []
    """Trackers of accelerate (tensorboard, wandb, ...) beside the log on disk."""


class Recipe(Config):
    """Everything a run needs. Fields are in the order in which data flows."""

    requires: list[str] = []
    """Packages to install for this recipe, as pip takes them."""
    prompts: Part[PromptsConfig]
    """Where the prompts come from."""
    teacher: Part[TeacherConfig]
    """The slow model."""
    samples: SamplesConfig = SamplesConfig()
    """The teacher's samples."""
    student: Part[StudentConfig]
    """The network that learns."""
    backbone: Part[BackboneConfig] | None = None
    """Features for the critics; none where no loss asks for logits."""
    pool: Part[PoolConfig] | None = None
    """The critics' heads."""
    refresh: Part[RefreshConfig] | None = None
    """Replacement of heads; none never replaces one."""
    critics: dict[CriticName, CriticConfig] = {}
    """Several critics by name, each with `backbone`, `pool` and `refresh`, in the place of the one
    that those keys give; losses see the logits of all of them."""
    losses: list[Part[LossConfig]] = Field(min_length=1)
    """Terms of the players' losses."""
    warmup: WarmupConfig = WarmupConfig()
    """Iterations in which the student or the critics train alone, before both do."""
    refinement: Part[RefinementConfig]
    """Roll-out lengths, and how many iterations train both players."""
    optim: OptimConfig
    """Optimizers of the student, of the heads, and of networks beside them."""
    metrics: Annotated[tuple[MetricsConfig, ...], OneOrMore(MetricsConfig)] = ()
    """What judges the finished student."""
    run: RunConfig = RunConfig()
    """Batches, seed, precision, checkpoints and previews."""

    def all_critics(self) -> dict[str, CriticConfig]:
        """Every critic by name; the only one of the short form has the empty name."""
        if self.backbone is None or self.pool is None:
            return dict(self.critics)
        return {"": CriticConfig(backbone=self.backbone, pool=self.pool, refresh=self.refresh)}

    def critic_of(self, part: ComponentConfig) -> CriticConfig:
        """The critic that the backbone, pool or refresh policy belongs to."""
        critics = self.all_critics().values()
        return next(c for c in critics if any(part is p for p in (c.backbone, c.pool, c.refresh)))

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if (self.pool is None) != (self.backbone is None):
            there, missing = ("pool", "backbone") if self.pool else ("backbone", "pool")
            raise misfit(f"needs a `{missing}`: heads judge a backbone's features", there)
        if self.critics and self.pool is not None:
            raise misfit("are given beside `pool`; name all of them here", "critics")
        needs_heads = self.refresh is not None or self.warmup.critic
        if needs_heads and self.pool is None and not self.critics:
            loc = ("refresh",) if self.refresh is not None else ("warmup", "critic")
            raise misfit("needs a `pool` whose heads it could work on", *loc)
        if self.warmup.student and not self.warmup.losses:
            raise misfit(
                "needs `losses`: what the student minimises in its warm-up", "warmup", "student"
            )
        for n, loss in enumerate(self.losses):
            for field, value in (("noise", "fresh"), ("real", "pictures")):
                if loss.paired and getattr(self.samples, field) == value:
                    said = (
                        f"compares pictures of one x_T, which `samples.{field}: {value}` excludes"
                    )
                    raise misfit(said, "losses", str(n))
        if self.run.parallel == "fsdp2" and self.optim.student.bits == 8:
            said = "cuts the moments into shards, which 8 bits do not allow; leave `bits` at 32"
            raise misfit(said, "run", "parallel")
        if self.run.parallel == "fsdp2" and not self.student.can_shard:
            said = "needs a student that trains whole; this one is small, and `ddp` does for it"
            raise misfit(said, "run", "parallel")
        if self.optim.updates == "alternating" and self.run.accumulate > 1:
            said = "needs `run.accumulate: 1`: else the maps of all micro-batches would be kept"
            raise misfit(said, "optim", "updates")
        for n, part in enumerate(self.metrics[1:], start=1):
            first = self.metrics[0]
            shared = ("num_images", "seed", "steps")
            if any(getattr(part, name) != getattr(first, name) for name in shared):
                said = "should have num_images, seed and steps of the first: all judge one set"
                raise misfit(said, "metrics", str(n))
        if self.samples.cache is not None and self.samples.count is None:
            raise misfit("needs `count`: how many samples to keep", "samples", "cache")
        return self


class ModelRecipe(Config):
    """What a run's student is drawn and exported with, whatever it was trained by."""

    model_config = ConfigDict(extra="ignore")

    teacher: Part[TeacherConfig]
    """The slow model, which encodes and decodes."""
    student: Part[StudentConfig]
    """The network that learned."""
    run: RunConfig = RunConfig()
    """Batches, seed, precision, checkpoints and previews."""
