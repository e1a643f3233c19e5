"""A panel before one micro-batch: view -> crop -> noise to t* -> backbone -> drawn heads -> logits.

Simultaneous updates: one pass over the real pictures and one over the fake ones serve both players.
From the fake's logits the critics' gradient goes to the heads' weights, and the student's to the
fake's features. Alternating: each head sees real and fake in one call; after its step it runs again
on the same maps. A backbone that trains has a pass of its own for the critics' fake, and runs again
after their step.

Legend: B batch, C channels, H, W latent cells, K patch logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor, nn

from distillkit.errors import UserError
from distillkit.randomness import generator
from distillkit.training.guard.returns import check_logits, check_maps
from distillkit.training.models.critic import Critic
from distillkit.training.models.head_graph import passed_on
from distillkit.training.models.looks import Look, random_window, rows_on
from distillkit.values import Condition, DrawnHead, HeadLogits, JudgedView, Panel, Window, sent

Maps = list[list[Tensor]]
"""Feature maps by view and level."""


@dataclass(kw_only=True)
class PanelPass:
    """What the drawn heads of one critic say of a micro-batch; each pass runs when it is asked for.

    `real` and `fake` give the latents (B, C, H, W).
    """

    critic: Critic
    panel: Panel
    real: Callable[[], Tensor]
    fake: Callable[[], Tensor]
    cond: Condition
    null: Condition | None
    positions: Sequence[int]
    seed: int
    critics_alone: bool = False
    """Whether nobody but the critics learns from `critic_logits`: then a head sees real and fake in
    one call, which takes less time where maps are small."""
    _pooled: dict[int, Tensor] = field(default_factory=dict)
    """Pooled prompts by the view's index in the panel, for heads that see them."""

    @cached_property
    def critic_logits(self) -> list[HeadLogits]:
        """Logits whose gradients reach the drawn heads and a backbone that trains, no more."""
        if self.critics_alone and not self.critic.backbone_trains:
            return self._both(*self._joint_logits())
        drawn_heads = list(self._drawn_heads())
        with torch.enable_grad():
            real = [
                self._run(head, v, self._real_maps[v][drawn.level])
                for v, _, drawn, head in drawn_heads
            ]
            if self.critic.backbone_trains:
                # Its own gradient is the critics' too. The fake is detached from the student.
                maps = self._maps(self.fake().detach())
                fake = [
                    self._run(head, v, maps[v][drawn.level]) for v, _, drawn, head in drawn_heads
                ]
            else:
                found = (p for *_, head in drawn_heads for p in head.parameters())
                weights = list(dict.fromkeys(found))  # a head may be drawn twice
                fake = passed_on(self._fake_logits, weights, weights)
        return self._both(real, fake)

    @torch.enable_grad()
    def _joint_logits(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of real and of fake, from one call of every head on both."""
        drawn_heads = list(self._drawn_heads())
        judged = dict.fromkeys((v, drawn.level) for v, _, drawn, _ in drawn_heads)
        players = (self._real_maps, self._fake_maps)
        maps = {(v, lv): torch.cat([of[v][lv].detach() for of in players]) for v, lv in judged}
        logits = [
            self._run(head, v, maps[v, drawn.level]).chunk(2) for v, _, drawn, head in drawn_heads
        ]
        return [real_BK for real_BK, _ in logits], [fake_BK for _, fake_BK in logits]

    @property
    def is_judged(self) -> bool:
        """Whether a loss has asked for the critic's logits."""
        return "critic_logits" in self.__dict__

    @torch.enable_grad()
    def student_logits(self, fresh: bool) -> list[HeadLogits]:
        """Logits whose gradients reach the student through `fake_BK` and nothing else.

        `fresh`: the heads have been updated since the critic's logits, so all logits are computed
        again; otherwise they still hold.
        """
        if fresh:
            self._forget_logits()
            with torch.no_grad():
                real = [
                    self._run(head, v, self._real_maps[v][drawn.level])
                    for v, _, drawn, head in self._drawn_heads()
                ]
        else:
            real = [each.real_BK.detach() for each in self.critic_logits]
            self.__dict__.pop("_real_maps", None)  # every head has read them
        leaves = self._fake_leaves
        maps = [self._fake_maps[v][level] for v, level in leaves]
        return self._both(real, passed_on(self._fake_logits, maps, list(leaves.values())))

    def _forget_logits(self) -> None:
        """What depends on weights that are no longer there."""
        of_backbone = (
            ("_real_maps", "_fake_maps", "_fake_leaves") if self.critic.backbone_trains else ()
        )
        for name in ("_fake_logits", *of_backbone):
            self.__dict__.pop(name, None)

    @cached_property
    def _fake_logits(self) -> list[Tensor]:
        """Of every drawn head, with the graph that both players' gradients go through."""
        with torch.enable_grad():
            # Views: torch's module hooks (a FLOP counter's, say) refuse leaves in `autograd.grad`.
            seen = {key: leaf.view_as(leaf) for key, leaf in self._fake_leaves.items()}
            return [
                self._run(head, v, seen[v, drawn.level])
                for v, _, drawn, head in self._drawn_heads()
            ]

    @cached_property
    def _fake_leaves(self) -> dict[tuple[int, int], Tensor]:
        """The fake's maps that heads look at, by view and level, without the backbone's graph."""
        judged = dict.fromkeys((v, drawn.level) for v, _, drawn, _ in self._drawn_heads())
        maps = {(v, level): self._fake_maps[v][level] for v, level in judged}
        return {key: m.detach().requires_grad_(m.requires_grad) for key, m in maps.items()}

    @torch.no_grad()
    def without_graph(self) -> list[HeadLogits]:
        """Logits of both players that nobody learns from."""
        return self._both(self.perturbed("real", 0.0), self.perturbed("fake", 0.0))

    def perturbed(self, which: str, sigma: float) -> list[Tensor]:
        """Logits of the real or fake pictures, perturbed after noising to t*: a backbone pass."""
        x_0_BCHW = (self.real() if which == "real" else self.fake()).detach()
        with torch.set_grad_enabled(self.critic.backbone_trains):
            maps = self._maps(x_0_BCHW, sigma)
        return [
            self._run(head, v, maps[v][drawn.level]).float()
            for v, _, drawn, head in self._drawn_heads()
        ]

    def _run(self, head: nn.Module, v: int, map_BChw: Tensor) -> Tensor:
        guard, seen_by_head = self.critic.guard("pool"), self._input_of(head, v, map_BChw)
        with guard("heads"):
            logits_BK: Tensor = head(*seen_by_head)
        guard.once("heads", lambda: check_logits(logits_BK, len(map_BChw)))
        return logits_BK

    def _input_of(self, head: nn.Module, v: int, map_BChw: Tensor) -> tuple[Tensor, ...]:
        """The map, and the pooled prompt of view `v` for a head that sees it: of the view's
        pictures, once or, for real and fake together, twice."""
        if not getattr(head, "sees_prompt", False):
            return (map_BChw,)
        if v not in self._pooled:
            backbone: Any = self.critic.backbone
            with self.critic.guard("backbone")("pooled()"):
                pooled_BP = backbone.pooled(self._cond_of(self.panel.views[v]))
            self._pooled[v] = pooled_BP.to(map_BChw.device, self.real().dtype)
        pooled_BP = self._pooled[v]
        return map_BChw, pooled_BP.repeat(len(map_BChw) // len(pooled_BP), 1)

    def _both(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> list[HeadLogits]:
        """The drawn heads' logits, in their order."""
        return [
            HeadLogits(
                view=judged.view.name,
                level=drawn.level,
                head=drawn.head,
                t_B=judged.t_B,
                rows=judged.rows,
                critic=self.critic.name,
                real_BK=real_BK.float(),
                fake_BK=fake_BK.float(),
            )
            for (_, judged, drawn, _), real_BK, fake_BK in zip(
                self._drawn_heads(), real, fake, strict=True
            )
        ]

    def _drawn_heads(self) -> Iterator[tuple[int, JudgedView, DrawnHead, nn.Module]]:
        """Every drawn head that judges a picture, with the index of its view in the panel."""
        for v, judged in enumerate(self.panel.views):
            for drawn in judged.heads if judged.rows != () else ():
                yield v, judged, drawn, self.critic.pool.heads[drawn.head]

    @cached_property
    def _real_maps(self) -> Maps:
        with torch.set_grad_enabled(self.critic.backbone_trains):
            return self._maps(self.real())

    @cached_property
    def _fake_maps(self) -> Maps:
        with torch.enable_grad():
            return self._maps(self.fake())

    @cached_property
    def _looks(self) -> list[Look]:
        """How the pictures are shown to the backbone, for each size of crops."""
        shape = self.real().shape[1:]
        sizes: dict[tuple[int, int], list[tuple[int, Window, Tensor]]] = {}
        for v, judged in enumerate(self.panel.views):
            if judged.rows != ():
                window, noise_BChw = self._window(v, judged, shape)
                size = (window.height, window.width)
                sizes.setdefault(size, []).append((v, window, noise_BChw))
        return [self._look(*zip(*seen, strict=True)) for seen in sizes.values()]

    def _look(
        self, views: Sequence[int], windows: Sequence[Window], noises: Sequence[Tensor]
    ) -> Look:
        device, judged = self.real().device, [self.panel.views[v] for v in views]
        return Look(
            views=views,
            rows=rows_on(device, judged),
            windows=windows,
            t_B=sent(torch.cat([each.t_B for each in judged]), device),
            noise_BChw=sent(torch.cat(list(noises)), device),
            cond=Condition.join([self._cond_of(each) for each in judged]),
        )

    def _window(self, v: int, judged: JudgedView, shape: Sequence[int]) -> tuple[Window, Tensor]:
        """A view's crop and noise, on the CPU."""
        generators = [self._generator("look", p, v) for p in self._positions(judged)]
        cell = getattr(self.critic.backbone, "cell", 1)
        window = random_window(shape, judged.view.crop, generators, cell)
        size = (shape[0], window.height, window.width)
        return window, torch.stack([torch.randn(size, generator=rng) for rng in generators])

    def _maps(self, x_0_BCHW: Tensor, sigma: float = 0.0) -> Maps:
        """Feature maps. Views of one size pass through the backbone together."""
        maps: Maps = [[] for _ in self.panel.views]
        for look in self._looks:
            for level_map in self._backbone_pass(x_0_BCHW, look, sigma):
                for v, rows in zip(look.views, level_map.split(look.counts), strict=True):
                    maps[v].append(rows if self.critic.mixed else rows.to(x_0_BCHW.dtype))
        return maps

    def _backbone_pass(self, x_0_BCHW: Tensor, look: Look, sigma: float) -> Sequence[Tensor]:
        """One backbone pass over the views of a look, concatenated along the batch."""
        crops, t_B = look.crops(x_0_BCHW), look.t_B
        if getattr(self.critic.backbone, "sees_pictures", False) and self.critic.decode is not None:
            # Pictures in the place of noisy latents (ADD, section 3.2): t* has no meaning there.
            t_B, x_t_BCHW = torch.zeros_like(t_B), self.critic.decode(crops)
        else:
            x_t_BCHW = self.critic.schedule.add(crops, look.noise_BChw, t_B)
        if sigma:
            # Approximate R1: perturb what the backbone sees, after noising (APT, section 3.4).
            draws = [
                torch.randn(x_t_BCHW.shape[1:], generator=self._generator("r1", p, v))
                for v in look.views
                for p in self._positions(self.panel.views[v])
            ]
            x_t_BCHW = x_t_BCHW + sigma * sent(torch.stack(draws), x_t_BCHW.device)
        backbone, guard = self.critic.backbone, self.critic.guard("backbone")
        with guard("features()"):
            maps = backbone.features(x_t_BCHW, t_B, look.cond, look.window)
        guard.once("features()", lambda: check_maps(maps, backbone, len(x_t_BCHW)))
        return maps

    def _cond_of(self, judged: JudgedView) -> Condition:
        """What a view's pictures are shown with: their prompts, or the null condition.

        Raises `UserError` where the teacher has none.
        """
        cond = self.cond if judged.view.conditional else self.null
        if cond is None:
            raise UserError(
                f"view '{judged.view.name}' has no prompt, and the teacher has no unconditional "
                "condition: let the pool have conditional views alone"
            )
        return cond if judged.rows is None else cond.rows(judged.rows)

    def _positions(self, judged: JudgedView) -> list[int]:
        """Numbers in the run of the pictures that a view judges."""
        rows = range(len(self.positions)) if judged.rows is None else judged.rows
        return [self.positions[row] for row in rows]

    def _generator(self, purpose: str, position: int, v: int) -> Generator:
        name = [self.critic.name] if self.critic.name else []
        return generator(self.seed, purpose, position, v, *name)
