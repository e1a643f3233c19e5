"""The critics at work: view -> crop -> noise to t* -> backbone -> drawn heads -> logits.

One backbone pass for the real pictures and one for the fake ones serve both players. The fake
pass keeps its graph; the heads see its features detached when they learn, and whole (with their
own weights detached) when the student learns.

Legend: B batch, C channels, H, W latent cells, K patch logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from distillkit.contracts import Backbone, Condition, Look, Panel, Pool, Seat, Verdict, Window
from distillkit.noising import NoiseSchedule
from distillkit.randomness import generator


@dataclass
class Critics:
    """What judges: a backbone, and the pool whose heads sit on it."""

    backbone: Backbone
    pool: Pool
    schedule: NoiseSchedule


@dataclass
class Pictures:
    """An iteration's pictures without anybody to judge them: all that many losses need."""

    x_T_BCHW: Tensor
    cond: Condition
    null: Condition
    real_BCHW: Tensor
    fake_BCHW: Tensor
    steps: int
    positions: Sequence[int]
    """The pictures' numbers in the run; draws depend on them, so any split of a batch agrees."""
    seed: int

    @property
    def generator(self) -> Generator:
        """For draws of a loss's own; the same at every call."""
        return generator(self.seed, "loss", self.positions[0])

    def for_critic(self) -> Sequence[Verdict]:
        """Nobody judges: no verdicts."""
        return []

    def for_student(self) -> Sequence[Verdict]:
        """Nobody judges: no verdicts."""
        return []

    def real_perturbed(self, sigma: float) -> Sequence[Tensor]:
        """Nobody judges: no logits."""
        return []


@dataclass
class Judged(Pictures):
    """An iteration's pictures before a panel. Passes run when somebody asks for a verdict."""

    critics: Critics
    panel: Panel

    def for_critic(self) -> Sequence[Verdict]:
        """Verdicts whose gradients reach the drawn heads and nothing else."""
        return self._critic_verdicts

    def for_student(self) -> Sequence[Verdict]:
        """Verdicts whose gradients reach the student through `fake_BK` and nothing else."""
        return self._student_verdicts

    def real_perturbed(self, sigma: float) -> Sequence[Tensor]:
        """Logits of the real pictures, disturbed after noising to t*: one more backbone pass."""
        with torch.no_grad():
            features = self._features(self.real_BCHW, sigma)
        return [
            self.critics.pool.heads[seat.head](features[n][seat.level]).float()
            for n, look in enumerate(self.panel.looks)
            for seat in look.seats
        ]

    @cached_property
    def _critic_verdicts(self) -> list[Verdict]:
        return [
            _verdict(look, seat, head(real), head(fake.detach()))
            for look, seat, head, real, fake in self._seats()
        ]

    @cached_property
    def _student_verdicts(self) -> list[Verdict]:
        # The heads do not move between the players' gradients: the real logits still hold.
        verdicts = []
        seats = self._seats()
        for (look, seat, head, _, fake), said in zip(seats, self._critic_verdicts, strict=True):
            # Every name of a shared tensor, so that torch need not look for more of them.
            named = head.named_parameters(remove_duplicate=False)
            still = {name: p.detach() for name, p in named}
            fake_BK = functional_call(head, still, (fake,), tie_weights=False)
            verdicts.append(_verdict(look, seat, said.real_BK.detach(), fake_BK))
        return verdicts

    def _seats(self) -> list[tuple[Look, Seat, nn.Module, Tensor, Tensor]]:
        heads = self.critics.pool.heads
        return [
            (look, seat, heads[seat.head], self._real[n][seat.level], self._fake[n][seat.level])
            for n, look in enumerate(self.panel.looks)
            for seat in look.seats
        ]

    @cached_property
    def _real(self) -> list[list[Tensor]]:
        with torch.no_grad():
            return self._features(self.real_BCHW)

    @cached_property
    def _fake(self) -> list[list[Tensor]]:
        return self._features(self.fake_BCHW)

    @cached_property
    def _places(self) -> list[tuple[Window, Tensor]]:
        """Each look's crop and noise; real and fake share them (they are paired)."""
        return [self._place(n, look) for n, look in enumerate(self.panel.looks)]

    def _place(self, n: int, look: Look) -> tuple[Window, Tensor]:
        channels, height, width = self.real_BCHW.shape[1:]
        h, w = max(1, round(height * look.view.crop)), max(1, round(width * look.view.crop))
        tops, lefts, noises = [], [], []
        for position in self.positions:
            rng = generator(self.seed, "look", position, n)
            tops.append(int(torch.randint(height - h + 1, (), generator=rng)))
            lefts.append(int(torch.randint(width - w + 1, (), generator=rng)))
            noises.append(torch.randn(channels, h, w, generator=rng))
        # On the CPU: `crop` reads the corners, and a GPU would be waited for at each look.
        window = Window(torch.tensor(tops), torch.tensor(lefts), *(h, w, height, width))
        return window, torch.stack(noises).to(self.real_BCHW.device)

    def _features(self, x_0_BCHW: Tensor, sigma: float = 0.0) -> list[list[Tensor]]:
        """Features by look and level. Looks of one shape go through the backbone together."""
        shapes: dict[tuple[int, int], list[int]] = {}
        for n, (window, _) in enumerate(self._places):
            shapes.setdefault((window.height, window.width), []).append(n)
        features: list[list[Tensor]] = [[] for _ in self.panel.looks]
        for together in shapes.values():
            maps = self._pass(x_0_BCHW, together, sigma)
            for level_map in maps:
                for n, rows in zip(together, level_map.chunk(len(together)), strict=True):
                    features[n].append(rows)
        return features

    def _pass(self, x_0_BCHW: Tensor, together: list[int], sigma: float) -> Sequence[Tensor]:
        """One backbone pass over the looks `together`, below each other in one batch."""
        looks = [self.panel.looks[n] for n in together]
        places = [self._places[n] for n in together]
        crops = torch.cat([crop(x_0_BCHW, window) for window, _ in places])
        t_B = torch.cat([look.t_B.to(crops.device) for look in looks])
        x_t_BCHW = self.critics.schedule.add(crops, torch.cat([eps for _, eps in places]), t_B)
        if sigma:
            draws = [
                torch.randn(x_t_BCHW.shape[1:], generator=generator(self.seed, "r1", p, n))
                for n in together
                for p in self.positions
            ]
            x_t_BCHW = x_t_BCHW + sigma * torch.stack(draws).to(x_t_BCHW.device)
        cond = Condition.join([self.cond if k.view.conditional else self.null for k in looks])
        return self.critics.backbone.features(x_t_BCHW, t_B, cond, join([w for w, _ in places]))


def _verdict(look: Look, seat: Seat, real_BK: Tensor, fake_BK: Tensor) -> Verdict:
    return Verdict(look.view.name, seat.level, look.t_B, real_BK.float(), fake_BK.float())


def crop(x_BCHW: Tensor, window: Window) -> Tensor:
    """Each picture's own crop."""
    if window.height == window.full_height and window.width == window.full_width:
        return x_BCHW
    corners = zip(window.top_B.tolist(), window.left_B.tolist(), strict=True)
    return torch.stack(
        [
            x_CHW[:, top : top + window.height, left : left + window.width]
            for x_CHW, (top, left) in zip(x_BCHW, corners, strict=True)
        ]
    )


def join(windows: Sequence[Window]) -> Window:
    """Windows of one size, below each other."""
    first = windows[0]
    return Window(
        torch.cat([w.top_B for w in windows]),
        torch.cat([w.left_B for w in windows]),
        *(first.height, first.width, first.full_height, first.full_width),
    )


def pairwise_accuracy(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """How often a head puts the teacher's picture above the student's, by view and t*.

    0.5 is blind (a tie counts half), 1 is a critic that always wins; 0.55 to 0.8 is a game.
    """
    scores: dict[str, list[Tensor]] = {}
    for v in verdicts:
        gap_B = (v.real_BK - v.fake_BK).detach().float().mean(1)
        level = f"t{int(v.t_B[0])}" if bool((v.t_B == v.t_B[0]).all()) else "mixed t"
        scores.setdefault(f"{v.view} {level}", []).append((gap_B.sign() + 1).mean() / 2)
    return {name: float(torch.stack(parts).mean()) for name, parts in sorted(scores.items())}
