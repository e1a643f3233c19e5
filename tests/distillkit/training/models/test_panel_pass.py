"""A panel before a micro-batch: each picture is judged as if it were alone, by its own heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.randomness import generator, noise
from distillkit.training.build import pool_arguments
from distillkit.training.models.critic import Critic
from distillkit.training.models.panel_pass import PanelPass
from distillkit.values import Condition, DrawnHead, HeadLogits, JudgedView, Panel, View
from distillkit_nitrofusion.pool import DynamicPoolConfig
from tests.distillkit.world import world_teacher

BATCH, SEED = 6, 3
POSITIONS = range(12, 12 + BATCH)
TEACHER = world_teacher()


class ConditionBackbone:
    """Features that know timestep and prompt: the picture plus t / 1000 plus the condition."""

    channels = (4, 4)
    pooled_channels = 2

    def pooled(self, cond: Condition) -> Tensor:
        return cond.tensors["told"]

    def features(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Any) -> list[Tensor]:
        told_B = t_B / 1000 + cond.tensors["told"].mean(1)
        feature_BCHW = x_t_BCHW + told_B[:, None, None, None]
        return [feature_BCHW, feature_BCHW.tanh()]

    def modules(self) -> list[nn.Module]:
        return []


def critic_of(
    draw: str = "per-picture", name: str = "", backbone: Any = None, **pool_fields: Any
) -> Critic:
    """36 heads: three views, three noise levels, two levels of features, two a slot."""
    backbone = backbone or ConditionBackbone()
    fields: dict[str, Any] = {"timesteps": [10, 250, 500], "heads_per_slot": 2, "draw": draw}
    fields |= {"width": 16, "depth": 1, "zero_init": False}
    config = DynamicPoolConfig(**fields | pool_fields)
    pool = config.build(*pool_arguments(config, backbone, 0))
    return Critic(backbone, pool, None, TEACHER.schedule, SEED, name)


REAL, FAKE = (noise((4, 8, 8), SEED, what, POSITIONS) for what in ("real", "fake"))
TOLD = Condition({"told": torch.randn(BATCH, 2, generator=generator(0, "told"))})
NULL = Condition({"told": torch.full((BATCH, 2), 9.0)})


def pass_of(
    critic: Critic, panel: Panel, rows: slice = slice(0, BATCH), critics_alone: bool = False
) -> PanelPass:
    """The panel before some of the pictures."""
    fake_BCHW = FAKE[rows].clone().requires_grad_()
    return PanelPass(
        critic=critic,
        panel=panel.of(rows),
        real=lambda: REAL[rows],
        fake=lambda: fake_BCHW,
        cond=TOLD[rows],
        null=NULL[rows],
        positions=POSITIONS[rows],
        seed=SEED,
        critics_alone=critics_alone,
    )


def judge(critic: Critic, panel: Panel, v: int, head: DrawnHead, b: int, x_CHW: Tensor) -> Tensor:
    """Patch logits (K,) of one picture, without the code under test: crop, noise to t*, head."""
    judged = panel.views[v]
    place = b if judged.rows is None else judged.rows.index(b)
    t = judged.t_B[place : place + 1]
    rng = generator(SEED, "look", POSITIONS[b], v, *([critic.name] if critic.name else []))
    side = round(8 * judged.view.crop)
    top, left = (int(torch.randint(8 - side + 1, (), generator=rng)) for _ in range(2))
    eps = torch.randn((4, side, side), generator=rng)
    a = TEACHER.schedule.alpha_bar_T[int(t)]
    crop = x_CHW[:, top : top + side, left : left + side]
    x_t = a.sqrt() * crop + (1 - a).sqrt() * eps
    cond = (TOLD if judged.view.conditional else NULL)[slice(b, b + 1)]
    maps = critic.backbone.features(x_t[None], t, cond, None)  # type: ignore[arg-type]
    judging = critic.pool.heads[head.head]
    prompt = [cond.tensors["told"]] if getattr(judging, "sees_prompt", False) else []
    logits: Tensor = judging(maps[head.level], *prompt)
    return logits[0]


@pytest.mark.parametrize("draw", ["one", "all", "per-picture"])
@pytest.mark.parametrize(
    ("name", "prompt", "critics_alone"),
    [("", False, False), ("second", False, True), ("", True, False), ("", True, True)],
)
def test_every_picture_is_judged_as_if_it_were_alone(
    draw: str, name: str, prompt: bool, critics_alone: bool
) -> None:
    """With its own t*, heads, crop, noise, condition and pooled prompt, whoever is beside it."""
    critic = critic_of(draw, name, prompt_projection=prompt)
    panel = critic.draw(0, BATCH)
    found = iter(pass_of(critic, panel, critics_alone=critics_alone).critic_logits)
    judged_pictures: list[int] = []
    for v, judged in enumerate(panel.views):
        rows = range(BATCH) if judged.rows is None else judged.rows
        for head in judged.heads:
            logits = next(found)
            assert (logits.view, logits.level, logits.head) == (
                *(judged.view.name, head.level, head.head),
            )
            assert (logits.rows, logits.critic) == (judged.rows, name)
            judged_pictures += rows
            for n, b in enumerate(rows):
                for x_BCHW, logits_BK in ((REAL, logits.real_BK), (FAKE, logits.fake_BK)):
                    alone = judge(critic, panel, v, head, b, x_BCHW[b])
                    torch.testing.assert_close(logits_BK[n], alone, rtol=1e-4, atol=1e-5)
    assert next(found, None) is None
    times = 3 if draw == "all" else 1
    # Three views, two levels: each picture is judged by six heads, with draw: all by eighteen.
    assert sorted(judged_pictures) == sorted(list(range(BATCH)) * 6 * times)


def test_a_draw_per_picture_has_several_timesteps_in_one_batch() -> None:
    """Each picture has one t*, the same in all views, and every t* its own heads."""
    panel = critic_of().draw(0, BATCH)
    t_of: dict[int, set[int]] = {b: set() for b in range(BATCH)}
    for judged in panel.views:
        assert judged.rows is not None
        assert len({*judged.t_B.tolist()}) == 1
        for b in judged.rows:
            t_of[b].add(int(judged.t_B[0]))
    assert all(len(times) == 1 for times in t_of.values())
    assert len(set.union(*t_of.values())) > 1


def by_picture(logits: list[HeadLogits], first: int) -> dict[tuple[str, int, int, int], Tensor]:
    """(view, level, head, picture) -> real and fake logits (2, K)."""
    return {
        (each.view, each.level, each.head, first + b): torch.stack(
            [each.real_BK[n], each.fake_BK[n]]
        )
        for each in logits
        for n, b in enumerate(range(len(each.real_BK)) if each.rows is None else each.rows)
    }


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("which", ["critic", "student", "perturbed"])
def test_micro_batches_judge_as_one_batch(size: int, which: str) -> None:
    """Views that judge none of a micro-batch's pictures have no logits there."""
    critic = critic_of()
    panel = critic.draw(1, BATCH)

    def logits(rows: slice) -> dict[tuple[str, int, int, int], Tensor]:
        made = pass_of(critic, panel, rows)
        found = made.student_logits(False) if which == "student" else made.critic_logits
        if which != "perturbed":
            return by_picture(found, rows.start)
        pairs = zip(found, made.perturbed("real", 0.1), made.perturbed("fake", 0.1), strict=True)
        return {
            key: torch.stack([real[n], fake[n]])
            for each, real, fake in pairs
            for n, key in enumerate(by_picture([each], rows.start))
        }

    whole = logits(slice(0, BATCH))
    split = [logits(slice(b, min(b + size, BATCH))) for b in range(0, BATCH, size)]
    together = {key: tensor for part in split for key, tensor in part.items()}
    assert together.keys() == whole.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(together[key], tensor, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_heads_or_the_fake_alone() -> None:
    critic = critic_of()
    panel = critic.draw(0, BATCH)
    made = pass_of(critic, panel)
    fake_BCHW = made.fake()
    sum(each.fake_BK.mean() + each.real_BK.mean() for each in made.critic_logits).backward()  # type: ignore[union-attr]
    drawn = {id(p) for p in critic.parameters(panel.head_ids)}
    assert all((p.grad is not None) == (id(p) in drawn) for p in critic.pool.heads.parameters())
    assert fake_BCHW.grad is None
    critic.pool.heads.zero_grad(set_to_none=True)
    sum(each.fake_BK.mean() for each in made.student_logits(False)).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in critic.pool.heads.parameters())
    assert bool((fake_BCHW.grad.flatten(1).abs().amax(1) > 0).all())


def test_one_pass_of_the_heads_gives_each_player_its_own_gradient() -> None:
    """As from graphs of their own. A loss may use some of the heads, and each player other ones."""
    critic = critic_of("one")
    panel = critic.draw(0, BATCH)
    calls: list[nn.Module] = []
    hooks = [
        head.register_forward_hook(lambda head, *_: calls.append(head))
        for head in critic.pool.heads
    ]
    made = pass_of(critic, panel)
    (made.critic_logits[0].fake_BK.square() - made.critic_logits[0].real_BK).mean().backward()
    made.student_logits(False)[1].fake_BK.square().mean().backward()
    assert len(calls) == 2 * len(panel.head_ids)  # over the real pictures and over the fake ones
    for hook in hooks:
        hook.remove()

    first, second = panel.views[0].heads[:2]
    fake_BCHW = FAKE.clone().requires_grad_()

    def alone(head: DrawnHead, x_BCHW: Tensor) -> Tensor:
        return torch.stack([judge(critic, panel, 0, head, b, x_BCHW[b]) for b in range(BATCH)])

    own = critic.parameters([first.head])
    loss = (alone(first, FAKE).square() - alone(first, REAL)).mean()
    for p, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in critic.parameters([second.head]))
    [toward] = torch.autograd.grad(alone(second, fake_BCHW).square().mean(), fake_BCHW)
    torch.testing.assert_close(made.fake().grad, toward, rtol=1e-4, atol=1e-6)


def test_critics_that_learn_alone_call_each_head_once_for_both() -> None:
    """The heads' gradients are those of two calls; the student's come from later ones."""
    critic = critic_of(prompt_projection=True)
    panel = critic.draw(0, BATCH)
    gradients: list[list[Tensor]] = []
    for critics_alone in (False, True):
        made, calls = pass_of(critic, panel, critics_alone=critics_alone), []
        hooks = [
            head.register_forward_hook(lambda *seen, calls=calls: calls.append(len(seen[1][0])))
            for head in critic.pool.heads
        ]
        logits = made.critic_logits
        sum((h.fake_BK.square() - h.real_BK).mean() for h in logits).backward()  # type: ignore[union-attr]
        for hook in hooks:
            hook.remove()
        drawn = critic.parameters(panel.head_ids)
        gradients.append([p.grad.clone() for p in drawn if p.grad is not None])
        assert made.fake().grad is None
        critic.pool.heads.zero_grad(set_to_none=True)
        judged = [len(view.t_B) for view in panel.views for _ in view.heads]
        assert sum(calls) == 2 * sum(judged)
        assert len(calls) == (1 if critics_alone else 2) * len(judged)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    sum(h.fake_BK.mean() for h in made.student_logits(True)).backward()  # type: ignore[union-attr]
    assert bool((made.fake().grad.flatten(1).abs().amax(1) > 0).all())
    assert all(p.grad is None for p in critic.pool.heads.parameters())


def test_perturbed_fakes_are_the_fakes_with_a_little_noise_and_detached() -> None:
    """Without noise they are the critics' own logits; with it they differ a little."""
    critic = critic_of("one", backbone=ExampleBackboneConfig().build(TEACHER))
    made = pass_of(critic, critic.draw(0, BATCH))
    for which in ("real", "fake"):
        own = [getattr(each, f"{which}_BK") for each in made.critic_logits]
        for sigma, limit in ((0.0, 1e-6), (0.001, 0.2)):
            gaps = [a - b for a, b in zip(made.perturbed(which, sigma), own, strict=True)]
            assert max(float(gap.detach().abs().max()) for gap in gaps) < limit
        assert max(float(gap.detach().abs().max()) for gap in gaps) > 1e-5
    sum(each.mean() for each in made.perturbed("fake", 0.01)).backward()  # type: ignore[union-attr]
    assert made.fake().grad is None


def test_a_view_keeps_its_place_where_it_judges_nobody() -> None:
    view = View("v", 1.0, True)
    heads = (DrawnHead(0, 0),)
    panel = Panel(
        (
            JudgedView(view, torch.tensor([10, 10]), heads, rows=(0, 1)),
            JudgedView(view, torch.tensor([500, 500]), heads, rows=(2, 5)),
            JudgedView(view, torch.arange(6), heads),
        )
    )
    first, second, third = panel.of(slice(2, 4)).views
    assert (first.rows, len(first.t_B)) == ((), 0)
    assert (second.rows, second.t_B.tolist()) == ((0,), [500])
    assert (third.rows, third.t_B.tolist()) == (None, [2, 3])


def test_a_backbone_that_sees_pictures_gets_decoded_crops_and_passes_gradients_on() -> None:
    """Pictures in the place of noisy latents, at t = 0; the crop is that of the latent."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Pictures(ConditionBackbone):
        channels = (3, 3)
        sees_pictures = True

        def features(self, x_BCHW: Tensor, t_B: Tensor, *given: Any) -> list[Tensor]:
            seen.append((x_BCHW, t_B))
            return super().features(x_BCHW, t_B, *given)

    critic = critic_of("one", backbone=Pictures())
    critic.decode = lambda x_0_BCHW: x_0_BCHW[:, :3] * 2
    made = pass_of(critic, critic.draw(0, BATCH))
    assert made.critic_logits
    pictures = {len(x): x for x, _ in seen[:2]}
    torch.testing.assert_close(pictures[BATCH], REAL[:, :3] * 2)  # the global view
    assert pictures[2 * BATCH].shape == (2 * BATCH, 3, 4, 4)  # both local ones
    assert all(bool((t_B == 0).all()) for _, t_B in seen)
    sum(each.fake_BK.square().mean() for each in made.student_logits(False)).backward()  # type: ignore[union-attr]
    gradient = made.fake().grad
    assert bool((gradient[:, :3].flatten(1).abs().amax(1) > 0).all())
    assert not bool(gradient[:, 3].any())


def test_heads_of_whole_pictures_with_their_prompt_see_the_pooled_prompt() -> None:
    """A third of the heads: those of global-cond, not of crops and not of the null condition."""
    critic = critic_of(prompt_projection=True)
    seen = {
        (judged.view.name, critic.pool.heads[drawn.head].sees_prompt)
        for judged in critic.draw(0, BATCH).views
        for drawn in judged.heads
    }
    assert seen == {("global-cond", True), ("local-cond", False), ("local-uncond", False)}


@pytest.mark.parametrize("mixed", [False, True])
def test_heads_get_the_backbones_number_format_in_mixed_precision_alone(mixed: bool) -> None:
    class Half(ConditionBackbone):
        def features(self, *given: Any) -> list[Tensor]:
            return [map_BCHW.bfloat16() for map_BCHW in super().features(*given)]

    critic = critic_of("one", backbone=Half())
    critic.mixed = mixed
    seen: set[torch.dtype] = set()
    for head in critic.pool.heads:
        head.register_forward_pre_hook(lambda _, given: seen.add(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logits = pass_of(critic, critic.draw(0, BATCH)).critic_logits
    assert seen == {torch.bfloat16 if mixed else torch.float32}
    assert all(each.real_BK.dtype == each.fake_BK.dtype == torch.float32 for each in logits)
