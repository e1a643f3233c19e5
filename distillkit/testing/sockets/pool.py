"""Contract of a pool: the panels that it draws, its heads, their new weights.

Legend: B pictures, C channels, h, w cells of a feature map, K patch logits of a head, N heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distillkit.configs import ComponentConfig
from distillkit.testing.building import built
from distillkit.testing.findings import (
    Findings,
    calling,
    close,
    each,
    noise,
    perturb,
    same,
    seeded,
    shape_of,
    strangers,
    told,
    weights_of,
)
from distillkit.testing.panels import panel_flaws, plain
from distillkit.training.guard.returns import check_logits
from distillkit.values import DrawnHead

BATCH, SEED = 3, 7
POOLED = 6
"""Channels of the pooled prompt, for heads that see it."""
SIDES = (16, 12)
"""Cells of the first level's maps; those of each further level are half as many a side."""


def pool_findings(config: ComponentConfig, channels: tuple[int, ...]) -> Findings:
    """Panels and new weights are functions of the generator: two processes agree on both."""
    given: tuple[Any, ...] = (channels, SEED)
    other_given: tuple[Any, ...] = (channels, SEED + 1)
    if config.sees_prompt:  # type: ignore[attr-defined]
        given, other_given = (*given, POOLED), (*other_given, POOLED)
    part, twin = (built(config, *given, process=p) for p in (1, 2))
    if not isinstance(part.heads, nn.ModuleList) or not len(part.heads):
        yield "heads: should be an nn.ModuleList of at least one head"
        return
    other = built(config, *other_given)
    yield from each(
        _told(config, part, channels),
        _start(part, twin, other),
        _draws(part, twin, channels),
        _heads(built(config, *given), channels),
        _reset(part, twin, _random_buffers(part, other)),
    )


def _told(config: Any, part: Any, channels: Sequence[int]) -> Findings:
    """What the config tells of the pool before it is built."""
    chance, size = config.draw_chance(), config.pool_size(channels)
    if chance is not None and not 0 < chance <= 1:
        yield f"draw_chance(): {chance!r} is no chance in (0, 1]"
    made = (len(part.heads), sum(p.numel() for p in part.heads.parameters()))
    if size is not None and tuple(size) != made:
        yield f"pool_size(): tells {tuple(size)}, and build() makes {made} heads and parameters"


def _start(part: Any, twin: Any, other: Any) -> Findings:
    """First weights: of the seed alone, each head's its own."""
    if not same(weights_of([part.heads]), weights_of([twin.heads])):
        yield "heads: two processes start with different weights: use `seed`"
    elif same(weights_of([part.heads]), weights_of([other.heads])):
        yield "build(): two seeds give the same heads: use `seed`"
    parameters = list(part.heads.parameters())
    if len(parameters) < sum(len(list(head.parameters())) for head in part.heads):
        yield "heads: two heads share a parameter"
    elif _alike(part.heads):
        yield "heads: two heads start with the same weights, so that one is as good as both"
    if not parameters or not all(p.requires_grad for p in parameters):
        yield "heads: a parameter asks for no gradient"


def _alike(heads: nn.ModuleList) -> bool:
    """Whether two heads have equal parameters."""
    seen: set[tuple[Any, ...]] = set()
    for head in heads:
        key = tuple(hash(p.detach().float().numpy().tobytes()) for p in head.parameters())
        if key and key in seen:
            return True
        seen.add(key)
    return False


def _draws(part: Any, twin: Any, channels: Sequence[int]) -> Findings:
    """Panels: of the generator and the number of pictures alone."""
    before, heads = weights_of([part.heads]), len(part.heads)
    panels = [part.draw(BATCH, seeded(i)) for i in range(8)]
    flaws = [flaw for panel in panels for flaw in panel_flaws(panel, heads, channels, BATCH)]
    for batch in (1, 5):
        found = panel_flaws(part.draw(batch, seeded(batch)), heads, channels, batch)
        flaws += [f"{flaw}; `batch` is {batch} here" for flaw in found]
    yield from flaws[:3]
    if flaws:
        return
    if [plain(p) for p in panels] != [plain(twin.draw(BATCH, seeded(i))) for i in range(8)]:
        yield "draw(): two processes draw different panels from the same generator"
    elif plain(panels[0]) != plain(part.draw(BATCH, seeded(0))):
        yield "draw(): a panel depends on what was drawn before"
    if not same(before, weights_of([part.heads])):
        yield "draw(): weights changed"


def _heads(part: Any, channels: Sequence[int]) -> Findings:
    """Every head that eight panels have, on a map of the level that it is drawn for."""
    panels = [part.draw(BATCH, seeded(i)) for i in range(8)]
    drawn = {each: None for panel in panels for judged in panel.views for each in judged.heads}
    found: list[str] = []
    for each_drawn in drawn:
        if each_drawn.level in range(len(channels)) and each_drawn.head in range(len(part.heads)):
            found += each(_head(part.heads, each_drawn, channels[each_drawn.level]))
        if len(found) > 3:
            break  # the others have the same flaws
    yield from found


def _head(heads: nn.ModuleList, drawn: DrawnHead, channels: int) -> Findings:
    head = heads[drawn.head]
    perturb(head.parameters(), str(drawn.head))  # a new one may give every picture the logit 0
    height, width = (max(1, side >> drawn.level) for side in SIDES)
    feature_BChw = noise((BATCH, channels, height, width), "feature").requires_grad_()
    buffers = {name: t.clone() for name, t in head.named_buffers()}
    where = f"head {drawn.head} on level {drawn.level} ({channels} channels, {height}x{width})"
    prompt = (noise((BATCH, POOLED), "pooled"),) if getattr(head, "sees_prompt", False) else ()
    with calling(f"heads: {where}"):
        logits_BK = head(feature_BChw, *prompt)
    if shape_of(logits_BK)[:1] != (BATCH,) or logits_BK.ndim != 2:
        yield f"heads: gave {shape_of(logits_BK)}, not (B, K) patch logits"
        return
    if flaw := check_logits(logits_BK, BATCH):
        yield f"heads: {flaw}"
    yield from _gradients(head, feature_BChw, logits_BK)
    if prompt and torch.equal(logits_BK, head(feature_BChw, -prompt[0])):
        yield "heads: one declares `sees_prompt`, and its logits do not depend on the prompt"
    if not torch.equal(logits_BK, head(feature_BChw, *prompt)):
        yield "heads: logits differ between two calls: no dropout, no counter, no random numbers"
    alone_BK = head(feature_BChw[1:2], *(pooled_BP[1:2] for pooled_BP in prompt))
    if not close(alone_BK, logits_BK[1:2]):
        yield (
            "heads: logits of a picture depend on the rest of the batch: GroupNorm does not, "
            "BatchNorm does"
        )
    if changed := [name for name, t in head.named_buffers() if not torch.equal(t, buffers[name])]:
        yield (
            f"heads: a call changed the buffer `{changed[0]}`: a head is called several times in "
            "an iteration, and counts nothing"
        )
    yield from _detached(head, feature_BChw, *prompt)
    yield from _on_meta(head, where, feature_BChw, *prompt)


def _gradients(head: nn.Module, feature_BChw: Tensor, logits_BK: Tensor) -> Findings:
    """They reach the head's own weights and the features, and nothing else."""
    if not logits_BK.requires_grad:
        yield "heads: no gradient reaches their weights"
        return
    own = list(head.parameters())
    wanted = [feature_BChw, *(p for p in own if p.requires_grad)]
    at_feature, *at_own = torch.autograd.grad(
        logits_BK.sum(), wanted, retain_graph=True, allow_unused=True
    )
    if at_feature is None or not bool(at_feature.any()):
        yield (
            "heads: no gradient passes through them to the features, so that the student would "
            "learn nothing: do not detach what a head is given"
        )
    if all(gradient is None for gradient in at_own):
        yield "heads: no gradient reaches their weights"
    if strangers(logits_BK, [feature_BChw, *own]):
        yield "heads: one computes with a parameter that is not its own"


def _detached(head: nn.Module, *seen: Tensor) -> Findings:
    """As the student's step runs it: with weights that have no gradient."""
    frozen = {name: p.detach() for name, p in head.named_parameters(remove_duplicate=False)}
    with calling("heads: a head with detached weights (torch.func.functional_call)"):
        given = tuple(t.detach() for t in seen)
        logits_BK = functional_call(head, frozen, given, tie_weights=False)
    if logits_BK.requires_grad and strangers(logits_BK, ()):
        yield (
            "heads: the student's loss reaches a weight of the heads: a head should read its "
            "weights from its own attributes at every call"
        )


def _on_meta(head: nn.Module, where: str, *seen: Tensor) -> Findings:
    """On another device, and without values, as `distillkit plan` runs it."""
    state = {n: t.detach().to("meta") for n, t in (*head.named_parameters(), *head.named_buffers())}
    try:
        functional_call(head, state, tuple(t.detach().to("meta") for t in seen))
    except Exception as error:
        yield (
            f"heads: on the meta device {where} raised {told(error)}: `distillkit plan` runs heads "
            "there, so they read no values (`.item()`, `float()`), and what they compute with "
            "beside parameters is a buffer"
        )


def _random_buffers(part: Any, other: Any) -> list[str]:
    """Names of the first head's buffers that depend on the pool's seed."""
    theirs = dict(other.heads[0].named_buffers())
    own = part.heads[0].named_buffers()
    return [name for name, t in own if name in theirs and not torch.equal(t, theirs[name])]


def _reset(part: Any, twin: Any, random_buffers: Sequence[str]) -> Findings:
    """New weights: all of them, in place, of the generator alone."""
    own = [id(p) for p in part.heads.parameters()]
    _train(part.heads, 1, random_buffers)
    _train(twin.heads, 1, random_buffers)
    trained = [_state(head) for head in part.heads]
    part.reset([], seeded("none"))
    if any(_differ(_state(h), old) for h, old in zip(part.heads, trained, strict=True)):
        yield "reset(): changed a head though it was given none"
    part.reset([0], seeded("reset"))
    twin.reset([0], seeded("reset"))
    new = _state(part.heads[0])
    if [id(p) for p in part.heads.parameters()] != own:
        yield "reset(): replaced a parameter; write into the old one, the optimizer holds it"
        return
    yield from _kept(part.heads[0], trained[0], random_buffers)
    others = zip(part.heads[1:], trained[1:], strict=True)
    if any(_differ(_state(head), old) for head, old in others):
        yield "reset(): changed a head that was not to be reset"
    if _differ(new, _state(twin.heads[0])):
        yield "reset(): two processes give a head different weights from the same generator"
        return
    _train(part.heads, 2, random_buffers)
    part.reset([0], seeded("reset"))
    if _differ(new, _state(part.heads[0])):
        yield "reset(): a head's new weights depend on what it was before"
        return
    yield from _fresh(part, twin, new)
    twin.heads.load_state_dict(part.heads.state_dict())
    if not same(weights_of([part.heads]), weights_of([twin.heads])):
        yield "heads: state_dict() does not hold everything that a head is"


def _kept(head: nn.Module, trained: dict[str, Tensor], random_buffers: Sequence[str]) -> Findings:
    """What a reset forgot, of a head whose every weight had moved."""
    new, names = _state(head), [name for name, _ in head.named_parameters()]
    kept = [name for name in (*names, *random_buffers) if torch.equal(new[name], trained[name])]
    if len(kept) >= len(names):
        yield "reset(): the head kept its weights"
    elif kept:
        what = "buffer" if kept[0] in random_buffers else "parameter"
        yield f"reset(): the head kept its {what} `{kept[0]}`; write all of them anew"
    if not all(p.requires_grad for p in head.parameters()):
        yield "reset(): a parameter asks for no gradient any more"


def _fresh(part: Any, twin: Any, first: dict[str, Tensor]) -> Iterator[str]:
    """Other draws give other weights, from reset to reset and from head to head."""
    twin.reset([0], seeded("another reset"))
    if not _differ(first, _state(twin.heads[0])):
        yield (
            "reset(): two generators give a head the same weights, so that a refresh brings the "
            "same head back: draw from `generator`"
        )
        return
    part.reset(list(range(len(part.heads))), seeded("all"))
    if _alike(part.heads):
        yield "reset(): two heads that are reset together get the same weights"


def _state(head: nn.Module) -> dict[str, Tensor]:
    named = (*head.named_parameters(), *head.named_buffers())
    return {name: t.detach().clone() for name, t in named}


def _differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return not same(list(one.values()), list(other.values()))


@torch.no_grad()
def _train(heads: nn.ModuleList, by: float, random_buffers: Sequence[str]) -> None:
    """As if every head had been trained: all of its weights moved."""
    for head in heads:
        for name, t in (*head.named_parameters(), *head.named_buffers()):
            if isinstance(t, nn.Parameter) or name in random_buffers:
                t.copy_(t + by)  # True for a mask
