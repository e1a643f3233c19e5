"""Curves: what is drawn of a log, and the SVG element that a page gets."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from distillkit.report.curves import POINTS, Curve, Phase, chart, draw, smooth

RISING = {i: float(i) for i in range(40)}
TWO = [Phase("a&b", 0, 20), Phase("c", 20, 40)]


def lines(figure: Figure, colour: str) -> list[list[float]]:
    """The y values of each line of that colour."""
    drawn = figure.axes[0].get_lines()
    return [np.asarray(line.get_ydata()).tolist() for line in drawn if line.get_color() == colour]


def texts(svg: str) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_smoothing_is_a_centred_mean() -> None:
    """17 values around each: of 0..16, value 8 sees all of them, value 0 sees 0..8."""
    found = smooth(list(range(17)))
    assert found[8] == 8.0
    assert found[0] == 4.0
    assert smooth([2.5] * 100) == pytest.approx([2.5] * 100)
    assert smooth([1.0, 4.0]).tolist() == [2.5, 2.5]


def test_every_phase_has_a_raw_and_a_smoothed_line() -> None:
    """Of 20 rising values the first smoothed one is the mean of the first nine: 4, and 24."""
    raw_1, raw_2, smooth_1, smooth_2 = lines(draw([Curve("x", "red", RISING)], TWO), "red")
    assert (raw_1, raw_2) == (list(range(20)), list(range(20, 40)))
    assert (smooth_1[0], smooth_2[0]) == (4.0, 24.0)


def test_phases_are_named_and_separated() -> None:
    figure = draw([Curve("x", "red", RISING)], TWO)
    dashed = [line for line in figure.axes[0].get_lines() if line.get_color() != "red"]
    assert [np.asarray(line.get_xdata()).tolist() for line in dashed] == [[0, 0], [20, 20]]
    svg = chart([Curve("x", "red", RISING)], TWO)
    assert {"a&amp;b", "c"} < set(texts(svg))
    narrow = [Phase("a name that is far too long", 0, 1), Phase("c", 1, 40)]
    assert "a name that is far too long" not in texts(chart([Curve("x", "red", RISING)], narrow))


def test_limits_are_given_or_fitted_without_single_spikes() -> None:
    """Of 0, 1, 0, 1, ...: 0 to 1 with margins of 0.06. With one value of 1000 among them: up to the
    smoothed line, at most (1000 + 9) / 17, and not up to the spike."""
    points = {i: float(i % 2) for i in range(200)}
    whole = [Phase("p", 0, 200)]
    fitted = draw([Curve("x", "red", points)], whole)
    assert fitted.axes[0].get_ylim() == pytest.approx((-0.06, 1.06))
    top = 1009 / 17
    spiked = draw([Curve("x", "red", points | {100: 1000.0})], whole)
    assert spiked.axes[0].get_ylim() == pytest.approx((-0.06 * top, 1.06 * top))
    given = draw([Curve("x", "red", points)], whole, limits=(0.0, 5.0))
    assert given.axes[0].get_ylim() == (0.0, 5.0)


def test_a_band_is_shaded() -> None:
    plain = draw([Curve("x", "red", RISING)], TWO)
    shaded = draw([Curve("x", "red", RISING)], TWO, band=(0.55, 0.8))
    assert len(plain.axes[0].patches) == 0
    (band,) = shaded.axes[0].patches
    assert band.get_path().get_extents(band.get_patch_transform()).intervaly == pytest.approx(
        [0.55, 0.8]
    )


def test_several_curves_have_a_legend() -> None:
    """A name stays as it is: neither an underscore in front nor a dollar means anything."""
    names = ["global-cond", "_local", "$x$"]
    svg = chart([Curve(name, "red", RISING) for name in names], TWO)
    assert set(names) < set(texts(svg))
    assert "global-cond" not in texts(chart([Curve("global-cond", "red", RISING)], TWO))


def test_long_lines_are_thinned() -> None:
    points = dict.fromkeys(range(3 * POINTS), 1.0)
    drawn = lines(draw([Curve("x", "red", points)], [Phase("p", 0, 3 * POINTS)]), "red")
    assert [len(line) for line in drawn] == [POINTS, POINTS]


@pytest.mark.parametrize("points", [{0: 1.0}, dict.fromkeys(range(9), 0.0)])
def test_a_curve_of_one_point_and_one_that_never_moves(points: dict[int, float]) -> None:
    svg = chart([Curve("x", "red", points)], [Phase("p", 0, len(points))])
    assert "nan" not in svg
    assert "inf" not in svg
    assert svg.count("stroke: #ff0000") >= 2


def test_the_svg_is_one_element_and_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a user with a matplotlibrc, whose settings stay as they are."""
    svg = chart([Curve("x", "red", RISING), Curve("y", "blue", RISING)], TWO)
    assert svg.startswith("<svg viewBox=")
    assert svg.rstrip().endswith("</svg>")
    assert not re.search(r"https?:|<metadata|<!DOCTYPE", svg)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    assert chart([Curve("x", "red", RISING), Curve("y", "blue", RISING)], TWO) == svg
    assert matplotlib.rcParams["font.size"] == 30


def test_ids_of_charts_on_a_page_do_not_clash() -> None:
    """What two charts both define under one id (a tick's mark, a clip) is the same."""
    definitions: dict[str, str] = {}
    for svg in (
        chart([Curve("x", "red", RISING)], TWO),
        chart([Curve("y", "red", RISING)], TWO[:1]),
    ):
        for kind, name in re.findall(r'<(\w+)[^>]* id="([^"]+)"', svg):
            found = re.search(rf'id="{name}".*?</(?:{kind}|defs)>', svg, re.S)
            assert found is not None
            assert definitions.setdefault(name, found[0]) == found[0]
