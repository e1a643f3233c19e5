"""`check`, `plan` and friends tell what is missing before a pipeline is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import UserError
from distillkit.recipe.load import LoadedRecipe, load_recipe
from distillkit.recipe.preflight import describe_critics, preflight
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig
from distillkit_diffusers.io.model_configs import level_channels
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit.launch import command

RECIPE = """\
prompts: {{type: list, prompts: [a ring]}}
teacher: {{type: sdxl, model: {model}, dtype: float32, steps: 1}}
student: {{type: unet, timestep_shift: 250}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, timesteps: [10, 500], heads_per_slot: 2, width: 16, depth: 1}}
refresh: {{type: random, fraction: 0.05}}
losses: [{{type: hinge}}]
refinement: {{type: bottom-up, stages: {{1: 2}}}}
optim: {{student: {{lr: 1.0e-4}}, critic: {{lr: 1.0e-4}}}}
"""
HEARS = (
    "level 0 hears neither prompt nor t*; levels 1 to 3 hear the pooled prompt alone; levels 4 to "
    "9 hear the prompt's words"
)
DEAF = (
    "pool.levels: level 0 hears nothing of the prompt: heads on it judge as those of an "
    "unconditional view, whatever their view's name says"
)
WARM = ("warmup.student=5", "warmup.losses=[{type: regression}]")
START = (
    "student.start: the teacher's weights need many steps, and there is no warm-up to one step: "
    "without `warmup.student` and `warmup.losses` the critics win from the start"
)


@pytest.fixture
def file(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my.yaml"
    path.write_text(RECIPE.format(model=tiny_sdxl))
    return path


def loaded(file: Path, *sets: str) -> LoadedRecipe:
    return load_recipe(file, sets)


MISSING = [
    ("teacher.model=./gone", "set teacher.model to a path that exists, or to a hub id (owner/repo"),
    ("teacher.model=gone", "set teacher.model to a path that exists"),
    ("teacher.model=/models/gone.safetensors", "or to a file on the hub (owner/repo/file)"),
    ("teacher.model=package:distillkit_shapes/gone", "set teacher.model to a path that exists"),
    ("teacher.unet=gone.safetensors", "set teacher.unet to a path that exists, or to a file on th"),
    ("teacher.vae=~/gone", "set teacher.vae to a path that exists"),
    ("teacher.config=gone", "set teacher.config to a path that exists"),
    ("student.start=gone.safetensors", "set student.start to a path that exists"),
    ("backbone={type: unet-encoder, of: base, model: gone}", "set backbone.model to a path that"),
    ("teacher.variant=fp16", "tiny-sdxl has no files of the variant 'fp16'; leave `variant` out"),
    ("backbone.levels=99", "backbone.levels: 99, but the UNet has 10"),
    ("pool.levels=[3, 99]", "pool.levels: there is no level 99; the backbone's levels are 0 to 9"),
    ("pool.width=8388608", "billion parameters, and at most"),
    ("pool.heads_per_slot=1000000000", "heads with"),
]


@pytest.mark.parametrize(("flag", "sentence"), MISSING)
def test_what_is_missing_is_told_by_check_and_plan(
    file: Path, flag: str, sentence: str, capsys: Any
) -> None:
    for what in ("check", "plan"):
        assert command(what, file, "--set", flag) == 2
        *before, line = capsys.readouterr().err.splitlines()
        assert len(before) == (what == "check"), "check says first that the recipe itself is valid"
        assert line.startswith((f"--set {flag}: ", f"{file}:"))
        assert sentence in line


def test_levels_are_counted_on_the_levels_that_are_left(file: Path) -> None:
    with pytest.raises(UserError, match="no level 5; the backbone's levels are 0 to 2"):
        preflight(loaded(file, "backbone.levels=3", "pool.levels=[5]"))


def test_notes_stop_nothing(file: Path, capsys: Any) -> None:
    """Many-step weights without a warm-up, and sizes that can't be known."""
    assert preflight(loaded(file)) == [START, DEAF]
    assert preflight(loaded(file, *WARM)) == [DEAF]
    note = "teacher.model: 'owner/gone' is no folder here: its sizes are taken to be those of SDXL"
    assert preflight(loaded(file, *WARM, "teacher.model=owner/gone")) == [f"{note} base 1.0"]
    assert command("check", file) == 0
    assert f"note: {START}\n" in capsys.readouterr().out


def test_a_lora_needs_peft(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillkit_diffusers.io.model_configs.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"teacher.lora: LoRAs need peft: pip install 'peft"):
        preflight(loaded(file, "teacher.lora=owner/repo/lora.safetensors"))


def test_the_size_of_the_pool_is_that_of_its_heads(file: Path, teacher: Any) -> None:
    """2 t* x 3 views x 10 levels x 2 heads, without loading the UNet whose channels they read."""
    recipe = loaded(file, "pool.depth=2").recipe
    channels = level_channels(teacher.pipe.unet.config)
    assert recipe.backbone is not None
    assert recipe.pool is not None
    assert recipe.backbone.level_channels(recipe.teacher) == channels
    heads = recipe.pool.build(channels, 0).heads
    size = recipe.pool.pool_size(channels)
    assert size == (120, sum(p.numel() for p in heads.parameters()))
    [line] = describe_critics(recipe)
    assert line == (
        f"120 heads with {size.parameters / 1e6:.1f} M parameters; a head lives 20 iterations and "
        f"is trained 5.0 times, on average; {HEARS}"
    )


def test_sdxls_own_levels_are_known_without_a_file() -> None:
    """320 x4, 640 x3, 1280 x3."""
    channels = UNetEncoderConfig().level_channels(SDXLTeacherConfig())
    assert channels == (320,) * 4 + (640,) * 3 + (1280,) * 3
    assert UNetEncoderConfig().level_channels(SDXLTeacherConfig(model="owner/other")) is None


def test_a_variant_without_files_is_told_by_the_loader_too(tiny_sdxl: Path) -> None:
    with pytest.raises(
        UserError, match=r"^teacher.variant: .*no files of the variant 'fp16'; leav"
    ):
        load_teacher(tiny_sdxl, variant="fp16")


@pytest.mark.usefixtures("no_hub")
def test_a_variant_that_the_hub_does_not_give_may_be_left_out() -> None:
    with pytest.raises(UserError, match=r"or leave teacher\.variant out, if there are no such"):
        load_teacher("owner/repo", variant="fp16")


@pytest.mark.parametrize(
    ("flags", "errors"),
    [
        (["pool.levels=[0]"], ["global-cond", "local-cond"]),
        (["pool.levels=[0]", "pool.prompt_projection=true"], ["local-cond"]),
        (["pool.levels=[0]", "pool.views=[global-uncond]"], []),
        (["pool.levels=[1]"], []),
        (["backbone.levels=1", "pool.views=[local-uncond, local-cond]"], ["local-cond"]),
    ],
)
def test_a_conditional_view_that_never_hears_the_prompt_is_refused(
    file: Path, flags: list[str], errors: list[str]
) -> None:
    """Levels 1 to 3 hear the pooled prompt through the time embedding, which is enough; heads that
    see the prompt themselves need no level that does."""
    recipe = loaded(file, *WARM, *flags)
    if not errors:
        assert preflight(recipe) == []
        return
    with pytest.raises(UserError) as caught:
        preflight(recipe)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(errors)
    for line, view in zip(lines, errors, strict=True):
        other = view.replace("cond", "uncond")
        said = f"{view} hears nothing of the prompt on its levels, so that it judges as {other} wo"
        assert f"pool.views: {said}" in line
        assert "level 0 hears neither prompt nor t*" in line


def test_the_pool_of_ladd_needs_a_level_that_hears_the_prompt(file: Path) -> None:
    with pytest.raises(UserError, match=r"pool: its heads judge with the prompt, which no level"):
        preflight(loaded(file, "pool={type: continuous}", "backbone.levels=1"))


UNUSED = [
    ("teacher.eta=0.5", "teacher.eta: has no effect with solver ddim; it is for tcd"),
    (
        "teacher.timestep_shift=500",
        "teacher.timestep_shift: has no effect with solver ddim; it is for lcm-shift",
    ),
    ("teacher.lora_strength=0.5", "teacher.lora_strength: has no effect without `lora`"),
    ("student.rank=8", "student.rank: has no effect with `train: full`"),
    ("student.targets=[to_q]", "student.targets: has no effect with `train: full`"),
    ("pool.prompt_projection=true", None),
    ("samples.max_gb=1", "samples.max_gb: has no effect without a cache"),
    ("samples.dtype=float16", "samples.dtype: has no effect without a cache"),
    (
        "samples.cache_prompt_embeds=true",
        "samples.cache_prompt_embeds: has no effect without `cache`",
    ),
    ("samples.real_cache=x", "samples.real_cache: has no effect with `real: teacher`; it is for "
     "pictures"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "note"), UNUSED)
def test_fields_without_effect_are_told(file: Path, flag: str, note: str | None) -> None:
    assert preflight(loaded(file, *WARM, flag)) in ([note, DEAF], [DEAF, note], [DEAF])
    if note is not None:
        assert note in preflight(loaded(file, *WARM, flag))


def test_fields_that_the_solver_or_another_field_overrides(file: Path) -> None:
    lcm = ("teacher.solver=lcm", "teacher.spacing=leading", "teacher.timesteps=[999, 499]")
    assert preflight(loaded(file, *WARM, *lcm, "teacher.steps=2"))[:2] == [
        "teacher.spacing: has no effect with solver lcm, which has its own",
        "teacher.steps: has no effect beside `timesteps`, which overrides it",
    ]
    cells = ("pool.head=cell", "pool.stride=1", "pool.views=[local-cond]")
    assert preflight(loaded(file, *WARM, *cells, "pool.prompt_projection=true"))[1:] == [
        "pool.stride: has no effect with `head: cell`, which has none",
        "pool.prompt_projection: has no effect without the view global-cond, whose heads it is for",
    ]


def test_fields_of_losses_stages_and_views_that_do_nothing(file: Path) -> None:
    losses = "losses=[{type: hinge}, {type: regression, c: 0.1}]"
    stages = "refinement={type: bottom-up, stages: {1: 5}, replay: 0.1}"
    notes = preflight(
        loaded(file, *WARM, losses, stages, "pool.views=[global-cond]", "pool.crop=0.3")
    )
    assert {note for note in notes if "has no effect" in note} == {
        "losses.1.c: has no effect with `norm: mse`",
        "refinement.replay: has no effect with one stage",
        "pool.crop: has no effect without a local view",
    }


def test_losses_without_critics_and_critics_without_losses(file: Path) -> None:
    """Told before a run begins; it would stop at its first step, or train nothing."""
    with pytest.raises(UserError, match=r"warmup\.losses\.0: hinge learns from critics, and the"):
        preflight(loaded(file, "warmup.student=5", "warmup.losses=[{type: hinge}]"))
    none = ("pool=null", "backbone=null", "refresh=null")
    with pytest.raises(UserError, match=r"losses\.0: hinge needs a `backbone` and a `pool`"):
        preflight(loaded(file, *WARM, *none))
    alone = "losses=[{type: regression}]"
    assert preflight(loaded(file, *WARM, alone))[-1] == (
        "pool: no loss has a term for critics, so that heads are neither trained nor asked"
    )
    with pytest.raises(UserError, match=r"warmup\.critic: no loss has a term for critics"):
        preflight(loaded(file, *WARM, alone, "warmup.critic=5"))
    none += ("optim.critic=null",)
    assert preflight(loaded(file, *WARM, *none, alone, "run.offload_heads=true")) == [
        "run.offload_heads: has no effect without a `pool`"
    ]
    assert preflight(loaded(file, "warmup.losses=[{type: regression}]"))[-1] == (
        "warmup.losses: has no effect with `student: 0`"
    )
    ramped = ("warmup.student=5", "warmup.losses=[{type: regression, ramp: 3}]")
    assert preflight(loaded(file, *ramped))[-1] == (
        "warmup.losses.0.ramp: has no effect in a warm-up, which has the whole weight at once and "
        "trains one step"
    )


def test_optimizers_of_critics_that_no_loss_trains(file: Path) -> None:
    none = ("pool=null", "backbone=null", "refresh=null", "losses=[{type: regression}]")
    optim = ("critic={lr: 1.0e-3}", "aux={lr: 1.0e-3}", "updates=alternating", "critic_updates=3")
    why = "where no loss has a term for critics"
    assert preflight(loaded(file, *WARM, *none, *(f"optim.{each}" for each in optim))) == [
        f"optim.critic, optim.aux, optim.updates: has no effect {why}",
        f"optim.critic_updates: 2 of 3 iterations train nothing {why}",
    ]
    assert preflight(loaded(file, *WARM, *none, "optim.critic=null")) == []


def test_a_critics_warmup_in_which_no_critic_judges(file: Path) -> None:
    """Its roll-outs have one step; told before the student warms up."""
    flags = [*WARM, "warmup.critic=5", "refinement={type: fixed, steps: 2, iterations: 8}"]
    flags += ["critics={a: {steps: [%s], backbone: {type: unet-encoder}, pool: {type: dynamic}}}"]
    flags += ["pool=null", "backbone=null", "refresh=null"]
    said = r"warmup\.critic: its roll-outs have one step, and no critic judges those; see `steps`"
    with pytest.raises(UserError, match=said):
        preflight(loaded(file, *(flag.replace("%s", "2, 4") for flag in flags)))
    preflight(loaded(file, *(flag.replace("%s", "1, 2") for flag in flags)))


@pytest.mark.parametrize(
    ("start", "shift", "said"),
    [
        ("ByteDance/Hyper-SD/Hyper-SDXL-1step-Unet.safetensors", 500, (800, 499, 801)),
        ("tianweiy/DMD2/dmd2_sdxl_1step_unet_fp16.bin", 250, (399, 249, 400)),
        ("ByteDance/Hyper-SD/Hyper-SDXL-1step-Unet.safetensors", 801, None),
        ("tianweiy/DMD2/dmd2_sdxl_1step_unet_fp16.bin", 400, None),
        ("owner/repo/other.safetensors", 500, None),
    ],
)
def test_published_starts_that_the_shift_runs_elsewhere(
    file: Path, start: str, shift: int, said: tuple[int, int, int] | None
) -> None:
    """floor(999 * 500 / 1000) = 499 where Hyper-SDXL's one step is at 800 = floor(999 * 0.801)."""
    sets = (f"student.start={start}", f"student.timestep_shift={shift}")
    notes = [note for note in preflight(loaded(file, *sets)) if note.startswith("student.start")]
    assert len(notes) == (said is not None)
    if said is not None:
        own, runs_at, shift_of_own = said
        assert (
            f"makes its one step at t = {own}, and `timestep_shift: {shift}` runs it at "
            in (notes[0])
        )
        assert f"at {runs_at}," in notes[0]
        assert notes[0].endswith(f"or set `timestep_shift: {shift_of_own}`")
    assert not [n for n in preflight(loaded(file, *sets, *WARM)) if n.startswith("student.start")]
