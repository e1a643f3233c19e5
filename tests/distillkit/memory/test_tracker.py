"""Bytes and FLOPs of a computation, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from distillkit.memory.tracker import MemoryTracker


def test_bytes_that_are_alive_and_their_peak_by_label() -> None:
    """100 float32 are 400 bytes, 50 are 200: the peak of 600 passes when the first goes."""
    tracker = MemoryTracker("cpu")
    with tracker:
        with tracker.label("first"):
            one = torch.zeros(100)
        with tracker.label("second"):
            other = torch.zeros(50)
        assert tracker.live == {"first": 400, "second": 200}
        view = one[:10]  # no storage of its own, but it keeps that of `one`
        del one
        assert tracker.total == 600
        del view
        assert tracker.live == {"first": 0, "second": 200}
    assert (tracker.total, tracker.peak) == (200, {"first": 400, "second": 200})
    tracker.restart()
    assert tracker.peak["first"] == 0
    del other
    assert tracker.total == 0


def test_what_is_owned_is_counted_once_and_what_is_ignored_never() -> None:
    network, idle = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    tracker = MemoryTracker("cpu")
    tracker.own("weights", network.parameters())
    tracker.ignore(idle.parameters())
    with tracker, torch.no_grad():
        x = torch.ones(2, 3)
        y = network(x) + idle(x)
    assert tracker.live["weights"] == 3 * 4 * 4
    assert tracker.live["other"] == x.nbytes + y.nbytes
    tracker.own("mine", network.parameters())
    assert (tracker.live["weights"], tracker.live["mine"]) == (0, 48)


def test_a_matrix_product_takes_two_operations_a_term() -> None:
    """(2, 3) times (3, 4): 2 * 4 sums of 3 products; on the meta device as with data."""
    for device in ("cpu", "meta"):
        tracker = MemoryTracker(device)
        a, b = torch.ones(2, 3, device=device), torch.ones(3, 4, device=device)
        with tracker, tracker.label("product"):
            for _ in range(3):
                a @ b
        assert tracker.flops["product"] == 3 * 2 * (2 * 4 * 3)
