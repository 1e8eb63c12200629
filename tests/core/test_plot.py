"""Line plots: what is drawn lies where its numbers say."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from trainkit.reporting.axes import Axis, Band, stretches
from trainkit.reporting.bars import bar_plot
from trainkit.reporting.chart import chart
from trainkit.reporting.contactsheet import INK, PAPER
from trainkit.reporting.plot import COLOURS, HEIGHT, LEFT, RIGHT, WIDTH, Mark, line_plot
from trainkit.reporting.plotfield import cut, dashes

BLUE, ORANGE = COLOURS[:2]


def pixels(picture, colour):
    """Return rows and columns of the pixels of a colour in the field of a plot without legend."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    return rows, columns


def test_a_rising_line_rises_from_corner_to_corner():
    picture = line_plot({"a": [(0, 0.0), (10, 5.0)]}, "step", "loss")
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    rows, columns = pixels(picture, BLUE)
    assert LEFT < columns.min() < LEFT + 40
    assert WIDTH - RIGHT - 40 < columns.max() < WIDTH - RIGHT
    assert rows[columns == columns.min()].min() > rows[columns == columns.max()].max() + 400


def test_a_power_law_is_straight_on_logarithmic_axes():
    points = [(10.0**n, 10.0 ** (2 * n)) for n in range(-3, 4)]
    rows, columns = pixels(line_plot({"a": points}, "x", "y", log_x=True, log_y=True), BLUE)
    slope, offset = np.polyfit(columns, rows, 1)
    assert np.abs(slope * columns + offset - rows).max() < 5


def test_gaps_stay_empty_and_a_lone_point_is_a_dot():
    gap = line_plot({"a": [(0, 1.0), (1, 1.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 1.0), (6, 1.0)]}, "x", "y")
    columns = pixels(gap, BLUE)[1]
    x = Axis(0, 6, LEFT, WIDTH - RIGHT, margin=0.015)
    assert np.abs(columns - x(3)).min() < 3
    for empty in (2, 4):
        assert not ((columns > x(empty - 0.8)) & (columns < x(empty + 0.8)) & (np.abs(columns - x(3)) > 10)).any()


def test_what_a_logarithmic_axis_has_no_place_for_is_a_gap():
    with_zero = [(1, 1.0), (2, 0.0), (3, 2.0), (4, 3.0)]
    with_gap = [(1, 1.0), (2, math.nan), (3, 2.0), (4, 3.0)]
    plots = [line_plot({"a": points}, "x", "y", log_y=True) for points in (with_zero, with_gap)]
    assert np.array_equal(*plots)


def test_a_curve_is_cut_at_the_range():
    picture = line_plot({"a": [(0, 0.5), (1, 0.5), (2, 1e300)]}, "x", "y", y_range=(0.0, 1.0))
    rows, columns = pixels(picture, BLUE)
    assert columns.max() < (LEFT + WIDTH) / 2 + 20
    assert rows.min() > 40
    assert list(cut([(0, 5), (10, -5), (20, 5), (30, 25)], 0, 10)) == [[(0, 5), (5, 0)], [(15, 0), (20, 5), (22.5, 10)]]
    assert list(cut([(0, -5), (1, -9)], 0, 10)) == []


def test_a_strong_mark_draws_its_line_and_dot():
    plain = line_plot({"a": [(0, 0.0), (10, 1.0)]}, "x", "y")
    marked = line_plot({"a": [(0, 0.0), (10, 1.0)]}, "x", "y", marks=[Mark(5, "here", 0.5, strong=True)])
    rows, columns = np.nonzero((marked == INK).all(-1) & ~(plain == INK).all(-1))
    x = Axis(0, 10, LEFT, WIDTH - RIGHT, margin=0.015)(5)
    line = rows[np.abs(columns - x) < 2]
    assert len(set(line.tolist())) > 500
    y = 76 + (HEIGHT - 92 - 76) / 2
    assert ((np.abs(columns - x) < 9) & (np.abs(rows - y) < 12)).sum() > 150


def test_marks_outside_of_the_series_widen_the_axis():
    picture = line_plot({"a": [(0, 0.0), (1, 1.0)]}, "x", "y", marks=[Mark(4, "far")])
    assert pixels(picture, BLUE)[1].max() < LEFT + (WIDTH - LEFT) / 3


def test_faint_series_are_paler_and_leave_the_colours_to_the_others():
    picture = line_plot({"raw": [(0, 1.0), (1, 0.0)], "smoothed": [(0, 0.0), (1, 1.0)]}, "x", "y", faint=["raw"])
    assert len(pixels(picture, BLUE)[0]) > 1000
    assert len(pixels(picture, ORANGE)[0]) == 0


def test_the_ninth_series_is_dashed():
    series = {f"s{i}": [(0, float(i)), (1, float(i))] for i in range(9)}
    rows, columns = pixels(line_plot(series, "x", "y"), BLUE)
    drawn = {row: len(set(columns[(rows == row) & (columns > LEFT)].tolist())) for row in set(rows[rows > 120])}
    full, dashed = max(drawn.values()), drawn[min(drawn)]
    assert 0.5 * full < dashed < 0.75 * full


def test_dashes_have_their_length_around_corners():
    pieces = list(dashes([(0, 0), (3, 0), (3, 4)], 2, 1))
    assert pieces[0] == [(0, 0), (2, 0)]
    assert pieces[1] == [(3, 0), (3, 2)]
    assert pieces[2] == [(3, 3), (3, 4)]
    assert sum(math.dist(a, b) for piece in pieces for a, b in pairwise(piece)) == pytest.approx(5)


def test_nothing_finite_is_refused():
    with pytest.raises(ValueError, match=r"nothing to plot: no point of a, b is finite"):
        line_plot({"a": [(0, math.nan)], "b": []}, "x", "y")


def test_numbers_of_logarithmic_axes_are_powers_and_few_of_them_get_more():
    assert Axis(1e-8, 1, 0, 100, log=True).ticks() == pytest.approx([10.0**n for n in range(-8, 1)])
    assert Axis(0.4, 7, 0, 100, log=True).ticks() == pytest.approx([0.5, 1, 2, 5])
    assert Axis(1, 10, 0, 100, log=True).minor_ticks() == pytest.approx([2, 3, 4, 5, 6, 7, 8, 9])


def test_a_constant_has_an_axis_around_it():
    axis = Axis(3, 3, 0, 100)
    assert axis(3) == 50
    assert (line_plot({"a": [(0, 3.0)]}, "x", "y") != PAPER).any()


def test_stretches_lie_between_gaps():
    nan, inf = math.nan, math.inf
    assert stretches([(0, nan), (1, 1), (2, 2), (3, inf), (4, nan), (5, 5), (nan, 6)]) == [[(1, 1), (2, 2)], [(5, 5)]]
    assert stretches([]) == []


def banded(gap=False):
    """Return a curve and a band of twice its width, which has a gap if that is asked for."""
    xs = [float(x) for x in range(11)]
    low = [(x, math.nan if gap and x == 5 else -1.0) for x in xs]
    return {"a": [(x, 0.0) for x in xs]}, {"wide": Band("a", low, [(x, 1.0) for x in xs])}


def fill_of(picture):
    """Return rows and columns of the commonest colour that is neither paper nor a line's."""
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return pixels(picture, colours[counts.argsort()[-2]])


def test_a_band_is_filled_between_its_bounds():
    series, bands = banded()
    picture = line_plot(series, "x", "y", bands=bands, y_range=(-2.0, 2.0))
    rows, columns = fill_of(picture)
    lines = pixels(picture, BLUE)[0]
    field = rows[columns > LEFT + 60]
    assert abs((field.min() + field.max()) / 2 - np.median(lines[lines > 200])) < 4
    assert columns.max() > WIDTH - RIGHT - 40


def test_a_band_has_gaps_and_widens_the_axis():
    series, bands = banded(gap=True)
    picture = line_plot(series, "x", "y", bands=bands)
    x = Axis(0, 10, LEFT, WIDTH - RIGHT, margin=0.015)
    rows, columns = fill_of(picture)
    inside = columns[rows > 300]
    assert not ((inside > x(4) + 3) & (inside < x(6) - 3)).any()
    assert ((inside > x(2)) & (inside < x(3))).any()
    assert bands["wide"].outlines()[1][0] == (6.0, -1.0)


def test_texts_stand_in_place_of_numbers(monkeypatch):
    axis = Axis(0, 10, 0, 100, labels=[(-1, "before"), (0, "first"), (5, "middle"), (11, "after")])
    assert [(axis(value), axis.text(value)) for value in axis.ticks()] == [(0, "first"), (50, "middle")]
    assert Axis(0, 10, 0, 100).text(2.5) == "2.5"
    series, bands = banded()
    drawing = chart(series, "x", bands=bands, x_labels=[(3.0, "<noon>")])
    assert "&lt;noon&gt;</text>" in drawing
    assert '<polygon class="band c0"' in drawing
    assert '<i class="key band c0"></i>wide' in drawing


def test_bars_are_as_long_as_their_shares():
    picture = bar_plot({"past": {"a": 0.25, "b": 0.5, "c": 0.0}, "none": {}, "future": {"d": 1.0}}, title="weights")
    rows = pixels(picture, BLUE)[0]
    lengths = [int((rows == row).sum()) for row in sorted(set(rows.tolist()))]
    long, short = max(lengths), min(lengths)
    assert lengths[0] == long
    assert long == pytest.approx(2 * short, abs=2)
    full = pixels(picture, ORANGE)[1]
    assert np.ptp(full) == pytest.approx(2 * long, abs=3)
    more = bar_plot({"past": {str(n): 0.05 for n in range(20)}}, most=4)
    assert len(more) < len(bar_plot({"past": {str(n): 0.05 for n in range(20)}}, most=12))
    with pytest.raises(ValueError, match="no group has a share"):
        bar_plot({"past": {}})
