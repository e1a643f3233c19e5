"""Contracts of pool, refresh and loss. Legend: N heads in a pool, K patch logits of a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.configs import ComponentConfig
from distillkit.contracts import Pool, Teacher
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.testing.findings import (
    PROMPTS,
    Findings,
    moved_by_gradient,
    noise,
    same,
    seeded,
    shape_of,
    trained,
    weights_of,
)
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.models.critic import Critic
from distillkit.training.models.student import Student
from distillkit.values import HeadStats, Panel

BATCH = 3


def pool(config: ComponentConfig, channels: tuple[int, ...]) -> Findings:
    """Panels and new weights are functions of the generator: two processes agree on both."""
    part, twin = (_elsewhere(config, seed, channels, 7) for seed in (1, 2))
    if not isinstance(part.heads, nn.ModuleList) or not len(part.heads):
        yield "heads: should be an nn.ModuleList of at least one head"
        return
    if not same(weights_of([part.heads]), weights_of([twin.heads])):
        yield "heads: two processes start with different weights: use `seed`"
    parameters = list(part.heads.parameters())
    if len(parameters) < sum(len(list(head.parameters())) for head in part.heads):
        yield "heads: two heads share a parameter"
    if not all(p.requires_grad for p in parameters):
        yield "heads: a parameter asks for no gradient"
    before = weights_of([part.heads])
    panels = [part.draw(BATCH, seeded(i)) for i in range(8)]
    if [_plain(p) for p in panels] != [_plain(twin.draw(BATCH, seeded(i))) for i in range(8)]:
        yield "draw(): two processes draw different panels from the same generator"
    if _plain(panels[0]) != _plain(part.draw(BATCH, seeded(0))):
        yield "draw(): a panel depends on what was drawn before"
    if not same(before, weights_of([part.heads])):
        yield "draw(): weights changed"
    flaws = [flaw for panel in panels for flaw in _panel(part, panel, channels)]
    yield from dict.fromkeys(flaws)
    if not flaws:
        yield from _reset(part, twin)


def _elsewhere(config: ComponentConfig, seed: int, *args: Any) -> Any:
    """Built as another process would: torch's global generator is in another state there."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build(*args)  # type: ignore[attr-defined]


def _plain(panel: Panel) -> Any:
    return [(judged.view, judged.t_B.tolist(), judged.heads) for judged in panel.views]


def _panel(part: Pool, panel: Panel, channels: tuple[int, ...]) -> Findings:
    if not panel.head_ids:
        yield "draw(): a panel has no head"
    for judged in panel.views:
        if shape_of(judged.t_B) != (BATCH,) or judged.t_B.device.type != "cpu":
            yield f"draw(): t_B is {shape_of(judged.t_B)}, not ({BATCH},) on the CPU"
        elif not 0 <= float(judged.t_B.min()) <= float(judged.t_B.max()) <= 999:
            yield f"draw(): t_B leaves the range 0 to 999: {judged.t_B.tolist()}"
        if not 0 < judged.view.crop <= 1:
            yield f"draw(): view '{judged.view.name}' has crop {judged.view.crop}, not in (0, 1]"
        for drawn in judged.heads:
            if not 0 <= drawn.level < len(channels) or not 0 <= drawn.head < len(part.heads):
                yield f"draw(): {drawn} is out of range"
                continue
            yield from _head(part.heads[drawn.head], channels[drawn.level])


def _head(head: nn.Module, channels: int) -> Findings:
    feature_BChw = noise((BATCH, channels, 8, 8), "feature").requires_grad_()
    logits_BK = head(feature_BChw)
    if logits_BK.ndim != 2 or len(logits_BK) != BATCH:
        yield f"heads: gave {shape_of(logits_BK)}, not (B, K) patch logits"
    elif not logits_BK.requires_grad:
        yield "heads: no gradient reaches their weights"


def _reset(part: Pool, twin: Pool) -> Findings:
    own = [id(p) for p in part.heads.parameters()]
    for other in (part, twin):
        for head in other.heads:  # as if it had been trained
            for p in head.parameters():
                p.data.add_(1)
    trained_to = [weights_of([head]) for head in part.heads]
    part.reset([0], seeded("reset"))
    twin.reset([0], seeded("reset"))
    after = [weights_of([head]) for head in part.heads]
    if [id(p) for p in part.heads.parameters()] != own:
        yield "reset(): replaced a parameter; write into the old one, the optimizer holds it"
    if same(after[0], trained_to[0]):
        yield "reset(): the head kept its weights"
    if any(not same(a, b) for a, b in zip(after[1:], trained_to[1:], strict=True)):
        yield "reset(): changed a head that was not to be reset"
    if not same(after[0], weights_of([twin.heads[0]])):
        yield "reset(): two processes give a head different weights from the same generator"
    twin.heads.load_state_dict(part.heads.state_dict())
    if not same(weights_of([part.heads]), weights_of([twin.heads])):
        yield "heads: state_dict() does not hold everything that a head is"


def refresh(config: ComponentConfig) -> Findings:
    """Distinct heads of the pool, as a function of iteration, ages and generator alone."""
    part, twin = (_elsewhere(config, seed) for seed in (1, 2))
    for count in (1, 5, 480):
        stats = _stats(count)
        kept = stats.age_N.clone()
        for i in (0, 1, 2, 3, 99, 999):
            picked = list(part.pick(i, stats, seeded(i)))
            where = f"pick(): iteration {i} of a pool of {count}"
            if any(type(head) is not int for head in picked):
                yield f"{where}: heads should be whole numbers of Python, not {picked[:3]}"
            elif len(set(picked)) != len(picked) or not set(picked) <= set(range(count)):
                yield f"{where}: {picked[:8]} are not distinct heads of it"
            if picked != list(twin.pick(i, stats, seeded(i))):
                yield f"{where}: two processes pick different heads from the same generator"
            if picked != list(part.pick(i, stats, seeded(i))):
                yield f"{where}: what is picked depends on what was picked before"
        if not torch.equal(kept, stats.age_N):
            yield "pick(): changed the ages"


def _stats(count: int) -> HeadStats:
    """Of a pool of which half was drawn."""
    age_N = torch.randint(1, 300, (count,), generator=seeded("age"))
    drawn_N = torch.rand(count, generator=seeded("drawn")) < 0.5
    accuracy_N = torch.rand(count, generator=seeded("accuracy"))
    return HeadStats(
        age_N=age_N,
        updates_N=age_N // 3,
        drawn_N=drawn_N,
        accuracy_N=accuracy_N.where(drawn_N, torch.tensor(torch.nan)),
    )


def loss(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """Where its gradients go: the critics' to heads and own networks, the student's to it alone."""
    network = ExampleStudentConfig().build(taught_by)
    part, twin = (_elsewhere(config, seed, taught_by, network) for seed in (1, 2))
    own = trained(part.modules())
    if not same(weights_of(part.modules()), weights_of(twin.modules())):
        yield "modules(): two processes start with different weights: seed them"
    critic = Critic(
        ExampleBackboneConfig().build(taught_by),
        ExamplePoolConfig().build((8, 8), 0),
        None,
        taught_by.schedule,
        seed=0,
    )
    weights = list(network.module.parameters())
    panel = critic.pool.draw(BATCH, seeded("panel"))
    drawn = [p for head in panel.head_ids for p in critic.pool.heads[head].parameters()]
    heads = list(critic.pool.heads.parameters())
    terms = 0
    for player, reached, spared in (
        ("critic", [*drawn, *own], weights),
        ("student", weights, [*heads, *own]),
    ):
        for p in (*reached, *spared):
            p.grad = None
        batch, other = (_batch(taught_by, network, critic, panel) for _ in range(2))
        term, again = getattr(part, player)(batch), getattr(part, player)(other)
        if term is None:
            continue
        terms += 1
        if not isinstance(term, Tensor) or term.ndim or not bool(term.isfinite()):
            yield f"{player}(): should give a finite scalar or None, not {shape_of(term)}"
            continue
        if not torch.equal(term, again):
            yield f"{player}(): differs between two calls: draw from `batch.noise` alone"
        if term.requires_grad:
            term.backward()
        at_fake = batch.fake_BCHW.grad
        if at_fake is not None:
            batch.rollout_BCHW.backward(at_fake)
        if not moved_by_gradient(reached):
            yield f"{player}(): its gradient reaches nothing of the {player}'s"
        if any(p.grad is not None for p in spared):
            yield f"{player}(): its gradient reaches the other player: use `{player}_logits`"
    if not terms:
        yield "it returns None for both players"
    yield from _after_step(part, [critic.pool.heads[head] for head in panel.head_ids])


def _batch(taught_by: Teacher, network: Any, critic: Critic, panel: Panel) -> LazyTrainBatch:
    x_T_BCHW = noise((BATCH, *taught_by.latent_shape), "x_T")
    cond = taught_by.encode(PROMPTS)
    student = Student(network, taught_by.schedule, 500)
    generators = [seeded(b) for b in range(BATCH)]
    return LazyTrainBatch(
        iteration=0,
        x_T_BCHW=x_T_BCHW,
        cond=cond,
        null=taught_by.null(BATCH),
        make_real=lambda: taught_by.sample(x_T_BCHW, cond, generators).detach(),
        make_fake=lambda: student.rollout(x_T_BCHW, cond, 1, x_T_BCHW[:0, None]),
        steps=1,
        positions=range(BATCH),
        seed=0,
        panels=[(critic, panel)],
    )


def _after_step(part: Any, heads: Sequence[nn.Module]) -> Findings:
    own = [id(p) for head in heads for p in head.parameters()]
    part.after_critic_step(heads)
    after = [p for head in heads for p in head.parameters()]
    if [id(p) for p in after] != own:
        yield "after_critic_step(): replaced a parameter; write into the old one"
    if not all(bool(p.isfinite().all()) for p in after):
        yield "after_critic_step(): left a weight that is not finite"
