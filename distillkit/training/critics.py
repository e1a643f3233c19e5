"""The critics (discriminators): view -> crop -> noise to t* -> backbone -> drawn heads -> logits.

One backbone pass for the real pictures and one for the fake ones serve both players. The fake
pass keeps its graph; the heads see its features detached when they learn, and attached (with their
own weights detached) when the student learns.

Legend: B batch, C channels, H, W latent cells, K patch logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from distillkit.contracts import Backbone, Pool
from distillkit.noising import NoiseSchedule
from distillkit.randomness import generator
from distillkit.values import Condition, DrawnHead, HeadLogits, JudgedView, Panel, Window


@dataclass
class Critics:
    """A backbone, and the pool whose heads sit on it."""

    backbone: Backbone
    pool: Pool
    schedule: NoiseSchedule


@dataclass(kw_only=True)
class LazyTrainBatch:
    """`contracts.TrainBatch`; a backbone pass runs when a loss first asks for logits.

    Without critics or panel (no pool in the recipe, or the student's warm-up) there are no logits.
    """

    x_T_BCHW: Tensor
    cond: Condition
    null: Condition
    real_BCHW: Tensor
    fake_BCHW: Tensor
    steps: int
    positions: Sequence[int]
    """The pictures' numbers in the run: random draws are keyed by them, so any split of a batch
    into micro-batches and processes sees the same draws."""
    seed: int
    critics: Critics | None = None
    panel: Panel | None = None

    @property
    def generator(self) -> Generator:
        """For random draws of a loss; the same at every call."""
        return generator(self.seed, "loss", self.positions[0])

    def critic_logits(self) -> Sequence[HeadLogits]:
        """Logits whose gradients reach the drawn heads and nothing else."""
        return self._critic_logits

    def student_logits(self) -> Sequence[HeadLogits]:
        """Logits whose gradients reach the student through `fake_BK` and nothing else."""
        return self._student_logits

    def perturbed_real_logits(self, sigma: float) -> Sequence[Tensor]:
        """Logits of the real pictures, perturbed after noising to t*: one more backbone pass."""
        with torch.no_grad():
            features = self._features(self.real_BCHW, sigma)
        return [head(features[v][drawn.level]).float() for v, _, drawn, head in self._drawn_heads()]

    @cached_property
    def _critic_logits(self) -> list[HeadLogits]:
        # The fake is detached: this loss must not reach the student.
        return [
            _logits(
                judged,
                drawn,
                real_BK=head(self._real[v][drawn.level]),
                fake_BK=head(self._fake[v][drawn.level].detach()),
            )
            for v, judged, drawn, head in self._drawn_heads()
        ]

    @cached_property
    def _student_logits(self) -> list[HeadLogits]:
        # Heads do not move between the two players' gradients, so the real logits still hold.
        logits = []
        for (v, judged, drawn, head), seen in zip(
            self._drawn_heads(), self._critic_logits, strict=True
        ):
            # With detached weights the gradient passes through the head and stays out of it.
            # Every name of a shared tensor is given, so that torch need not search for ties.
            named = head.named_parameters(remove_duplicate=False)
            frozen = {name: p.detach() for name, p in named}
            features = (self._fake[v][drawn.level],)
            fake_BK = functional_call(head, frozen, features, tie_weights=False)
            logits.append(_logits(judged, drawn, real_BK=seen.real_BK.detach(), fake_BK=fake_BK))
        return logits

    def _drawn_heads(self) -> Iterator[tuple[int, JudgedView, DrawnHead, nn.Module]]:
        """Every drawn head with the index of its view in the panel."""
        if self.critics is None or self.panel is None:
            return
        for v, judged in enumerate(self.panel.views):
            for drawn in judged.heads:
                yield v, judged, drawn, self.critics.pool.heads[drawn.head]

    @cached_property
    def _real(self) -> list[list[Tensor]]:
        with torch.no_grad():
            return self._features(self.real_BCHW)

    @cached_property
    def _fake(self) -> list[list[Tensor]]:
        return self._features(self.fake_BCHW)

    @cached_property
    def _windows(self) -> list[tuple[Window, Tensor]]:
        """Each view's crop and noise. Real and fake share them: they are paired by x_T."""
        views = self.panel.views if self.panel else ()
        return [self._window(v, judged) for v, judged in enumerate(views)]

    def _window(self, v: int, judged: JudgedView) -> tuple[Window, Tensor]:
        shape = self.real_BCHW.shape[1:]
        generators = [generator(self.seed, "look", p, v) for p in self.positions]
        window = random_window(shape, judged.view.crop, generators)
        size = (shape[0], window.height, window.width)
        noise_BChw = torch.stack([torch.randn(size, generator=rng) for rng in generators])
        return window, noise_BChw.to(self.real_BCHW.device)

    def _features(self, x_0_BCHW: Tensor, sigma: float = 0.0) -> list[list[Tensor]]:
        """Features by view and level. Views of one size pass through the backbone together."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for v, (window, _) in enumerate(self._windows):
            sizes.setdefault((window.height, window.width), []).append(v)
        features: list[list[Tensor]] = [[] for _ in self._windows]
        for together in sizes.values():
            for level_map in self._backbone_pass(x_0_BCHW, together, sigma):
                for v, rows in zip(together, level_map.chunk(len(together)), strict=True):
                    features[v].append(rows)
        return features

    def _backbone_pass(
        self, x_0_BCHW: Tensor, together: list[int], sigma: float
    ) -> Sequence[Tensor]:
        """One backbone pass over the views `together`, concatenated along the batch."""
        assert self.critics is not None
        assert self.panel is not None
        views = [self.panel.views[v] for v in together]
        windows = [self._windows[v][0] for v in together]
        crops = torch.cat([window.crop(x_0_BCHW) for window in windows])
        t_B = torch.cat([judged.t_B.to(crops.device) for judged in views])
        eps = torch.cat([self._windows[v][1] for v in together])
        x_t_BCHW = self.critics.schedule.add(crops, eps, t_B)
        if sigma:
            # Approximate R1: perturb what the backbone sees, after noising (APT, section 3.3).
            x_t_BCHW = x_t_BCHW + sigma * self._perturbation(x_t_BCHW, together)
        cond = Condition.join([self.cond if v.view.conditional else self.null for v in views])
        return self.critics.backbone.features(x_t_BCHW, t_B, cond, Window.join(windows))

    def _perturbation(self, x_t_BCHW: Tensor, together: list[int]) -> Tensor:
        draws = [
            torch.randn(x_t_BCHW.shape[1:], generator=generator(self.seed, "r1", p, v))
            for v in together
            for p in self.positions
        ]
        return torch.stack(draws).to(x_t_BCHW.device)


def _logits(
    judged: JudgedView, drawn: DrawnHead, *, real_BK: Tensor, fake_BK: Tensor
) -> HeadLogits:
    return HeadLogits(
        view=judged.view.name,
        level=drawn.level,
        head=drawn.head,
        t_B=judged.t_B,
        real_BK=real_BK.float(),
        fake_BK=fake_BK.float(),
    )


def random_window(shape: Sequence[int], fraction: float, generators: Sequence[Generator]) -> Window:
    """A crop of `fraction` of each side of a (C, H, W) latent, at a random corner a generator."""
    _, height, width = shape
    h, w = max(1, round(height * fraction)), max(1, round(width * fraction))
    tops, lefts = [], []
    for rng in generators:
        tops.append(int(torch.randint(height - h + 1, (), generator=rng)))
        lefts.append(int(torch.randint(width - w + 1, (), generator=rng)))
    # On the CPU: `Window.crop` reads the corners, and reading them from a GPU would wait for it.
    return Window(torch.tensor(tops), torch.tensor(lefts), h, w, height, width)


def pairwise_accuracy(head_logits: Sequence[HeadLogits]) -> dict[str, Tensor]:
    """How often a head puts the teacher's picture above the student's, by view and t*: scalars.

    0.5 is chance (a tie counts half), 1 a critic that always wins.
    """
    scores: dict[str, list[Tensor]] = {}
    for logits in head_logits:
        gap_B = (logits.real_BK - logits.fake_BK).detach().float().mean(1)
        t_B = logits.t_B
        level = f"t{int(t_B[0])}" if bool((t_B == t_B[0]).all()) else "mixed t"
        scores.setdefault(f"{logits.view} {level}", []).append((gap_B.sign() + 1).mean() / 2)
    return {name: torch.stack(parts).mean() for name, parts in sorted(scores.items())}
