"""The pool: the paper's 480 heads, even draws, and resets that touch nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from distillkit.contracts import Pool
from distillkit.errors import UserError
from distillkit_nitrofusion.pool import DynamicPoolConfig, StaticPoolConfig

TEN = (8,) * 10
TIMES = (10, 250, 500, 750)
VIEWS = ("global-cond", "local-cond", "local-uncond")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(pool: Pool) -> list[torch.Tensor]:
    """One row of numbers a head."""
    return [torch.cat([p.detach().flatten() for p in head.parameters()]) for head in pool.heads]


@pytest.fixture(scope="module")
def paper() -> Pool:
    return DynamicPoolConfig(width=16, depth=1).build(TEN, seed=0)


def test_the_papers_pool_has_480_heads_160_a_view(paper: Pool) -> None:
    """Drawing everything often enough meets every head, in the view that its number says."""
    assert len(paper.heads) == 480
    everything = DynamicPoolConfig(width=16, depth=1, draw="all").build(TEN, seed=0)
    heads_of: dict[str, set[int]] = {view: set() for view in VIEWS}
    for seed in range(60):
        for judged in everything.draw(1, seeded(seed)).views:
            heads_of[judged.view.name] |= {drawn.head for drawn in judged.heads}
    assert [heads_of[view] for view in VIEWS] == [
        set(range(160)),
        set(range(160, 320)),
        set(range(320, 480)),
    ]
    local = [view for judged in paper.draw(1, seeded(0)).views if (view := judged.view).crop < 1]
    assert len(local) == 2
    assert {view.crop for view in local} == {0.5}


def test_a_panel_of_one_timestep(paper: Pool) -> None:
    """Three views at one t*, ten heads each, one a level, numbered as the class says."""
    panel = paper.draw(5, seeded(3))
    assert [judged.view.name for judged in panel.views] == list(VIEWS)
    assert [judged.view.conditional for judged in panel.views] == [True, True, False]
    assert len({tuple(judged.t_B.tolist()) for judged in panel.views}) == 1
    assert len(panel.head_ids) == 30
    for v, judged in enumerate(panel.views):
        assert judged.t_B.dtype == torch.int64
        assert judged.t_B.shape == (5,)
        t = TIMES.index(int(judged.t_B[0]))
        assert [drawn.level for drawn in judged.heads] == list(range(10))
        assert [drawn.head // 4 for drawn in judged.heads] == [
            (v * 4 + t) * 10 + i for i in range(10)
        ]


def test_a_panel_of_all_timesteps() -> None:
    panel = DynamicPoolConfig(width=16, depth=1, draw="all").build(TEN, seed=0).draw(2, seeded(0))
    assert [(judged.view.name, int(judged.t_B[0])) for judged in panel.views] == [
        (view, t) for view in VIEWS for t in TIMES
    ]
    assert len(panel.head_ids) == 120


@pytest.mark.parametrize("draw", ["one", "all", "per-picture"])
def test_whole_slots_are_drawn_where_asked(draw: str) -> None:
    """Four heads of each slot: 40 a view and t*, numbered slot by slot."""
    fields = {"width": 16, "depth": 1, "draw": draw}
    whole = DynamicPoolConfig(draw_heads="all", **fields).build(TEN, seed=0).draw(5, seeded(3))
    single = DynamicPoolConfig(**fields).build(TEN, seed=0).draw(5, seeded(3))
    assert len(whole.views) == len(single.views)
    for judged, one in zip(whole.views, single.views, strict=True):
        assert (judged.view, judged.rows) == (one.view, one.rows)
        assert torch.equal(judged.t_B, one.t_B)
        slots = [drawn.head // 4 for drawn in one.heads]
        assert [drawn.head for drawn in judged.heads] == [
            4 * s + k for s in slots for k in range(4)
        ]
        assert [drawn.level for drawn in judged.heads] == [i for i in range(10) for _ in range(4)]


def test_a_panel_per_picture_shares_the_pictures_among_the_timesteps() -> None:
    """Each picture has one t*; its heads are of that t*'s slots; each view has all pictures."""
    pool = DynamicPoolConfig(width=16, depth=1, draw="per-picture").build(TEN, seed=0)
    panel = pool.draw(9, seeded(0))
    for v, name in enumerate(VIEWS):
        mine = [judged for judged in panel.views if judged.view.name == name]
        assert sorted(row for judged in mine for row in judged.rows) == list(range(9))
        for judged in mine:
            [t] = {*judged.t_B.tolist()}
            assert len(judged.t_B) == len(judged.rows)
            assert list(judged.rows) == sorted(judged.rows)
            assert [drawn.head // 4 for drawn in judged.heads] == [
                (v * 4 + TIMES.index(t)) * 10 + i for i in range(10)
            ]
    rows = {(judged.view.name, int(judged.t_B[0])): judged.rows for judged in panel.views}
    assert all(rows[name, t] == rows[VIEWS[0], t] for name, t in rows)


def test_timesteps_per_picture_are_even() -> None:
    """4,000 pictures: each t* 1,000 times, std 27."""
    pool = DynamicPoolConfig(width=16, depth=1, views=["global-cond"], draw="per-picture")
    panel = pool.build((8,), seed=0).draw(4000, seeded(0))
    counts = {int(judged.t_B[0]): len(judged.t_B) for judged in panel.views}
    assert set(counts) == set(TIMES)
    assert all(abs(count - 1000) < 4 * 27 for count in counts.values())


def test_a_draw_of_one_timestep_is_the_one_that_published_runs_had(paper: Pool) -> None:
    """The generator's first number is t*, the next ones the heads, view by view."""
    rng = seeded(11)
    t = int(torch.randint(4, (), generator=rng))
    picks = torch.randint(4, (3, 1, 10), generator=rng).flatten().tolist()
    panel = paper.draw(2, seeded(11))
    assert {int(judged.t_B[0]) for judged in panel.views} == {TIMES[t]}
    assert [drawn.head % 4 for judged in panel.views for drawn in judged.heads] == picks


def test_draws_are_even(paper: Pool) -> None:
    """4,000 panels: each t* 1,000 times (std 27), each head 4,000 / 4 / 4 = 250 times (std 15)."""
    times: Counter[int] = Counter()
    heads: Counter[int] = Counter()
    generator = seeded(0)
    for _ in range(4000):
        panel = paper.draw(1, generator)
        times[int(panel.views[0].t_B[0])] += 1
        heads.update(panel.head_ids)
    assert set(times) == set(TIMES)
    assert all(abs(times[t] - 1000) < 4 * 27 for t in TIMES)
    assert all(abs(heads[head] - 250) < 5 * 15.3 for head in range(480))
    # The sum of squares against its 460 or so degrees of freedom: no slot prefers one of its four.
    assert sum((heads[head] - 250) ** 2 / 250 for head in range(480)) < 480 + 5 * 31


def test_a_draw_depends_on_the_generator_alone(paper: Pool) -> None:
    def heads(seed: int) -> list[int]:
        return paper.draw(1, seeded(seed)).head_ids

    expected = heads(7)
    torch.manual_seed(123)
    paper.draw(1, seeded(8))
    assert heads(7) == expected
    assert paper.draw(64, seeded(7)).head_ids == expected
    assert len({tuple(heads(seed)) for seed in range(20)}) == 20


def test_first_weights_depend_on_the_seed_and_the_heads_number() -> None:
    def built(seed: int, **changes: object) -> list[torch.Tensor]:
        config = DynamicPoolConfig(width=16, depth=1, timesteps=[10], **changes)
        return weights(config.build((4, 4), seed))

    first, again, other = built(0), built(0), built(1)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
    assert len({tuple(row.tolist()) for row in first}) == len(first) == 24


def test_reset_changes_those_heads_and_no_other() -> None:
    """Bit for bit, in place, the same again from the same generator."""
    config = DynamicPoolConfig(width=16, depth=1, timesteps=[10])
    pools = [config.build((4, 4), seed=0) for _ in range(2)]
    before = [row.clone() for row in weights(pools[0])]
    addresses = [p.data_ptr() for p in pools[0].heads.parameters()]
    torch.manual_seed(5)
    pools[0].reset([3, 11], seeded(9))
    torch.manual_seed(6)
    pools[1].reset([3, 11], seeded(9))
    first, second = map(weights, pools)
    assert [i for i, row in enumerate(first) if not torch.equal(row, before[i])] == [3, 11]
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[3], first[11])
    assert [p.data_ptr() for p in pools[0].heads.parameters()] == addresses
    pools[1].reset([3, 11], seeded(10))
    assert not torch.equal(weights(pools[1])[3], first[3])


def test_a_reset_head_forgets_all_that_it_learned() -> None:
    """Norms and projection too: after training and reset it is what a new head is."""
    pool = DynamicPoolConfig(width=16, depth=2, timesteps=[10]).build((4,), seed=0)
    head = pool.heads[0]
    for parameter in head.parameters():
        parameter.data.add_(1)
    pool.reset([0], seeded(0))
    assert (head(torch.randn(2, 4, 8, 8, generator=seeded(1))) == 0).all()
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in head.norms)


def test_chosen_levels_keep_the_backbones_numbers() -> None:
    """Levels 2 and 0 of channels 4, 5, 6: drawn heads have levels 2 and 0, and 6 and 4 channels."""
    config = DynamicPoolConfig(
        width=16, depth=1, timesteps=[10], views=["global-cond"], levels=[2, 0], heads_per_slot=1
    )
    pool = config.build((4, 5, 6), seed=0)
    assert [(s.level, s.head) for s in pool.draw(1, seeded(0)).views[0].heads] == [(2, 0), (0, 1)]
    assert [head.convs[0].in_channels for head in pool.heads] == [6, 4]


def test_a_level_that_the_backbone_lacks() -> None:
    with pytest.raises(UserError, match=r"there is no level 3; the backbone's levels are 0 to 2"):
        DynamicPoolConfig(levels=[0, 3]).build((4, 5, 6), seed=0)


def test_the_static_pool_has_one_head_a_slot_and_the_dynamic_pools_timesteps(paper: Pool) -> None:
    """120 heads; at a t* always the same thirty; under one generator the dynamic pool's t*."""
    static = StaticPoolConfig(width=16, depth=1).build(TEN, seed=0)
    assert len(static.heads) == 120
    panels: dict[int, set[tuple[int, ...]]] = {}
    for seed in range(40):
        panel, dynamic = static.draw(1, seeded(seed)), paper.draw(1, seeded(seed))
        assert panel.views[0].t_B.equal(dynamic.views[0].t_B)
        panels.setdefault(int(panel.views[0].t_B[0]), set()).add(tuple(panel.head_ids))
    assert {t: len(drawn) for t, drawn in panels.items()} == dict.fromkeys(TIMES, 1)


def test_the_static_pool_with_all_timesteps_draws_nothing() -> None:
    static = StaticPoolConfig(width=16, depth=1, draw="all").build(TEN, seed=0)
    assert (
        static.draw(1, seeded(0)).head_ids == static.draw(1, seeded(1)).head_ids == list(range(120))
    )
