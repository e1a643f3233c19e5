"""A plan counts the bytes of the very objects that a run builds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distillkit.cli.plan import describe_samples
from distillkit.memory import fit as fit_module
from distillkit.memory.dry_run import SAMPLING
from distillkit.memory.fit import find_fits
from distillkit.memory.plan import GIB, Plan, make_plan, usable
from distillkit.memory.tracker import MemoryTracker
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.training.build import build_parts, make_schedule, make_train_state
from distillkit.training.schedule import IterationSpec
from distillkit.training.step import make_batch, train_step
from distillkit.training.train_state import TrainState

RECIPE = """\
prompts: {{type: list, prompts: [a ring, two bars]}}
teacher: {{type: sdxl, model: {model}, dtype: float32, steps: 2}}
student: {{type: unet, start: teacher, rank: 2, timestep_shift: 500}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, timesteps: [10, 500], heads_per_slot: 2, width: 64, depth: 1}}
losses: [{{type: hinge}}]
refinement: {{type: bottom-up, stages: {{1: 2, 2: 2}}}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run: {{batch: 2, accumulate: 2, threads: 1}}
"""
SWITCHES = [
    (),
    ("student.train=lora",),
    ("student.ema=0.9", "backbone.gradient_checkpointing=true"),
    ("student.ema=0.9", "run.offload_ema=true"),
    ("run.offload_heads=true", "student.gradient_checkpointing=true"),
    ("teacher.dtype=bfloat16", "teacher.offload=[text_encoders, vae]"),
    ("student.train=lora", "teacher.bits=4"),
    ("student.train=full", "teacher.bits=8"),
]


@pytest.fixture(scope="module")
def file(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "tiny.yaml"
    path.write_text(RECIPE.format(model=tiny_sdxl))
    return path


@cache
def plan_of(file: Path, *sets: str) -> Plan:
    """Shared: leave it as it is."""
    return make_plan(load_recipe(file, sets).recipe)


def built(file: Path, *sets: str) -> tuple[Recipe, TrainState, IterationSpec]:
    """The real thing: a recipe, its parts in their training state, the first iteration."""
    recipe = load_recipe(file, sets).recipe
    parts = build_parts(recipe)
    state = make_train_state(recipe, parts, Accelerator(cpu=True))
    return recipe, state, make_schedule(recipe, parts).spec(0)


def size(tensors: Sequence[Tensor]) -> int:
    return sum({t.untyped_storage()._cdata: t.nbytes for t in tensors}.values())


def tensors_of(*modules: nn.Module) -> list[Tensor]:
    return [t for m in modules for t in (*m.parameters(), *m.buffers())]


@pytest.mark.parametrize("sets", SWITCHES, ids=lambda sets: " ".join(sets) or "none")
def test_bytes_of_the_plan_are_those_of_the_real_train_state(
    file: Path, sets: Sequence[str]
) -> None:
    """Counted: weights; gradients as they arrive; the moments after a step of the optimizers."""
    plan = plan_of(file, *sets)
    recipe, state, spec = built(file, *sets)
    [critic] = state.critics
    pool, teacher, module = critic.pool, state.samples.teacher, state.student.network
    gradients: dict[int, Tensor] = {}
    for p in (*module.module.parameters(), *pool.heads.parameters()):
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: gradients.update({id(p): p.grad}))
    train_step(0, spec, state)
    moments = state.student_optimizer.state, state.critic_optimizer.state  # type: ignore[union-attr]
    stepped, drawn = ([t for s in state.values() for t in s.values()] for state in moments)
    parts = {part.name: part for part in plan.parts}
    student, heads = parts["student"], parts["heads"]

    own = [p for p in module.module.parameters() if p.requires_grad]
    mine, theirs = ([gradients[id(p)] for p in group if id(p) in gradients]
                    for group in (own, list(pool.heads.parameters())))  # fmt: skip
    assert (student.gradients, heads.gradients) == (size(mine), size(theirs))
    assert student.optimizer == size(stepped)
    assert student.weights == size(tensors_of(module.module))
    heads_on_device = [h for h in pool.heads if any(id(p) in gradients for p in h.parameters())]
    assert 0 < len(heads_on_device) < len(pool.heads)
    offload_heads = recipe.run.offload_heads
    assert heads.weights == size(tensors_of(*(heads_on_device if offload_heads else pool.heads)))
    assert heads.optimizer == size(drawn) * (
        1 if offload_heads else len(pool.heads) // len(heads_on_device)
    )
    offloaded = list(teacher.offloaded())  # type: ignore[attr-defined]
    there = [m for m in teacher.modules() if m not in offloaded]
    assert parts["teacher"].weights == size(tensors_of(*there))
    idle = [h for h in pool.heads if offload_heads and h not in heads_on_device]
    kept = list(state.ema.weights.values()) if state.ema is not None else []
    assert bool(kept) == bool(recipe.student.ema)
    away = recipe.run.offload_ema
    assert plan.offloaded == size([*tensors_of(*offloaded, *idle), *(kept if away else ())])
    if kept:
        assert ("EMA" not in parts) if away else (parts["EMA"].weights == size(kept))


@pytest.mark.parametrize(
    "sets", [(), ("student.train=lora",), ("student.train=lora", "teacher.bits=4")]
)
def test_the_students_activations_are_what_autograd_saves(file: Path, sets: Sequence[str]) -> None:
    """Against torch's own hooks on real tensors, without the parameters; within a tenth."""
    _, state, spec = built(file, *sets)
    parts = [*state.samples.teacher.modules(), state.student.network.module]
    weights = {t.untyped_storage()._cdata for t in tensors_of(*parts)}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        make_batch(state, spec, 0, 0, []).rollout_BCHW  # noqa: B018
    counted = sum(t.untyped_storage().nbytes() for t in saved.values())
    assert plan_of(file, *sets).student_graph == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("student.gradient_checkpointing=true",),
        ("student.train=lora", "teacher.bits=8"),
        ("student.train=lora", "teacher.bits=4", "backbone.gradient_checkpointing=true"),
    ],
)
def test_the_peak_is_that_of_a_real_iteration(
    file: Path, sets: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every storage on the CPU in a real iteration; moments, which come last, are left out."""
    plan = plan_of(file, *sets)
    _, state, spec = built(file, *sets)
    for step in ("step_critics", "step_student"):
        monkeypatch.setattr(state, step, lambda *_: None)
    [critic] = state.critics
    heads = critic.pool.heads
    modules = [*state.samples.teacher.modules(), state.student.network.module, heads]
    tracker = MemoryTracker("cpu")
    tracker.own("weights", tensors_of(*modules))
    with tracker:
        train_step(0, spec, state)
    moments = sum(part.optimizer for part in plan.parts)
    assert plan.peak - moments == pytest.approx(sum(tracker.peak.values()), rel=0.1)
    assert sum(plan.flops.values()) == pytest.approx(sum(tracker.flops.values()), rel=0.05)


@pytest.mark.slow
def test_samples_that_are_used_four_times_take_a_quarter_of_the_sampling(file: Path) -> None:
    once = make_plan(load_recipe(file, ()).recipe)
    again = make_plan(load_recipe(file, ("samples.uses=4", "samples.buffer=100")).recipe, once.dry)
    assert (again.peak, again.rollout, once.buffer) == (once.peak, once.rollout, 0)
    assert {n: f for n, f in again.flops.items() if n != SAMPLING} == {
        n: f for n, f in once.flops.items() if n != SAMPLING
    }
    assert again.flops[SAMPLING] == once.flops[SAMPLING] / 4 > 0
    # 100 iterations of 2 x 2 pictures of float32.
    assert again.buffer == 400 * 4 * math.prod(once.dry.parts.teacher.latent_shape)
    [said] = describe_samples(again)
    share = sum(again.flops.values()) / sum(once.flops.values())
    assert said.startswith("Teacher samples: each used 4 times; sampling is ")
    assert f"so that the iteration takes {share:.0%}; " in said
    assert describe_samples(once) == []


def test_each_switch_lowers_what_it_says(file: Path) -> None:
    plan = plan_of(file)

    def after(*sets: str) -> Plan:
        return plan_of(file, *sets)

    def sums(made: Plan) -> tuple[int, ...]:
        parts = made.parts
        kinds = ("weights", "gradients", "optimizer")
        return tuple(sum(getattr(part, kind) for part in parts) for kind in kinds)

    def activations(made: Plan) -> int:
        return sum(made.activations.values())

    assert activations(after("student.gradient_checkpointing=true")) < activations(plan)
    assert activations(after("backbone.gradient_checkpointing=true")) < activations(plan)
    half = after("run.precision=bf16")
    assert half.activations["student: forward"] < plan.activations["student: forward"]
    assert sums(half) == sums(plan)
    lora, lighter = sums(after("student.train=lora")), sums(plan)
    assert all(a < b for a, b in zip(lora, lighter, strict=True))
    eight = sums(after("optim.student.bits=8", "optim.critic.bits=8"))
    assert eight[:2] == lighter[:2]
    assert eight[2] < 0.7 * lighter[2]
    halves = after("run.batch=1", "run.accumulate=4")
    assert halves.student_graph == pytest.approx(plan.student_graph / 2, rel=0.05)
    assert halves.flops["student: forward"] == plan.flops["student: forward"]


@pytest.mark.slow
def test_a_card_that_is_too_small_gets_lines_that_make_it_fit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first switch is enough for a card a little smaller than what the recipe takes."""
    plan = plan_of(file)
    offset = (usable(1) - usable(0)) / GIB
    card = (plan.peak * 0.9 - usable(0)) / GIB / offset
    assert not plan.fits(card)
    tried: list[Sequence[str]] = []

    def load(sets: Sequence[str]) -> Recipe:
        tried.append(sets)
        return load_recipe(file, sets).recipe

    monkeypatch.setattr(fit_module, "LEAST", 1.0)
    [(_, fit)] = find_fits(load, (card,), plan)
    assert fit is not None
    assert fit.plan.fits(card)
    assert plan_of(file, *fit.sets).peak == fit.plan.peak
    assert tried[0] == ["run.precision=bf16"]


def test_the_backbones_checkpoints_change_no_gradient(file: Path) -> None:
    gradients = []
    for sets in ((), ("backbone.gradient_checkpointing=true",)):
        _, state, _ = built(file, *sets)
        [critic] = state.critics
        backbone, teacher = critic.backbone, state.samples.teacher
        x = torch.randn(2, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
        x.requires_grad_()
        corner = torch.zeros(2, dtype=torch.int64)
        from distillkit.values import Window

        window = Window(corner, corner, *(x.shape[-2:] * 2))
        cond = teacher.null(2)
        maps = backbone.features(x, torch.tensor([10, 500]), cond, window)
        sum(m.square().sum() for m in maps).backward()  # type: ignore[union-attr]
        gradients.append(x.grad)
    assert torch.equal(*gradients)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", ["null", "2"])
def test_a_fake_scores_checkpoints_save_memory_and_change_no_gradient(
    file: Path, rank: str
) -> None:
    gradients, saved = [], []

    def save(tensor: Tensor) -> Tensor:
        saved[-1] += tensor.nbytes
        return tensor

    for checkpoints in ("false", "true"):
        score = f"{{type: distribution-matching, rank: {rank}, gradient_checkpointing: "
        sets = (f"losses=[{{type: hinge}}, {score}{checkpoints}}}]",)
        parts = build_parts(load_recipe(file, sets).recipe)
        denoiser = parts.losses[1].loss.fake_score  # type: ignore[attr-defined]
        x = torch.randn(2, *parts.teacher.latent_shape, generator=torch.Generator().manual_seed(0))
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            output = denoiser(x, torch.tensor([10, 500]), parts.teacher.null(2))
        output.square().sum().backward()
        gradients.append([p.grad for p in denoiser.module.parameters()])
        assert not parts.teacher.denoiser.module.is_gradient_checkpointing
    assert saved[1] < saved[0]
    assert gradients[0]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_offloaded_networks_are_on_the_device_only_while_they_run(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(file, ["teacher.offload=[text_encoders, vae]"]).recipe
    teacher: Any = build_parts(recipe).teacher
    moves: list[tuple[str, str]] = []
    real = nn.Module.to

    def seen(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        moves.append((type(module).__name__, str(args[0])))
        return real(module, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "to", seen)
    teacher.to("cpu:0")
    assert [name for name, _ in moves] == ["UNet2DConditionModel"]
    texts = [teacher.pipe.text_encoder, teacher.pipe.text_encoder_2]
    weights = [p for m in texts for p in m.parameters()]
    homes, visits = [p.data_ptr() for p in weights], []
    for module in texts:
        module.register_forward_pre_hook(
            lambda m, _: visits.append(next(m.parameters()).data_ptr() not in homes)
        )
    teacher.encode(["a ring"])
    assert visits == [True, True]
    assert [p.data_ptr() for p in weights] == homes  # nothing is copied back


def test_tiles_take_less_memory_and_draw_the_same_size(file: Path) -> None:
    tiled = "teacher.vae_tiling=true"
    assert plan_of(file, tiled).dry.decoding < plan_of(file).dry.decoding
    teacher = build_parts(load_recipe(file, [tiled]).recipe).teacher
    plain = build_parts(load_recipe(file).recipe).teacher
    x = torch.randn(2, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    assert teacher.decode(x).shape == plain.decode(x).shape
