"""Plots of windows: what is drawn, over which times, and what a page holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from trainkit_task_series.grid import DAY, SECOND
from trainkit_task_series.insight import Insight
from trainkit_task_series.page import page_of
from trainkit_task_series.pictures import Course, bands_of, curves_of, panels_of, picture_of
from trainkit_task_series.timeaxis import span_of, time_labels

HOUR = 3_600 * SECOND
START = int(np.datetime64("2013-07-26T22:00:00", "us").astype(np.int64))
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def course(**changes):
    """Return a window of 8 past and 4 future hours of two targets."""
    steps = np.arange(24.0).reshape(12, 2)
    found = {
        "name": "<one>",
        "targets": ("cpu", "disk"),
        "times": START + HOUR * np.arange(12),
        "past": steps[:8],
        "truth": steps[8:],
        "forecast": steps[8:] + 1,
        "quantiles": steps[8:, :, None] + np.arange(5),
        "levels": LEVELS,
    }
    return Course(**(found | changes))


def test_curves_begin_where_the_past_ends():
    curves = curves_of(course(), 1)
    assert curves.series["past"] == [(float(step - 8), 2.0 * step + 1) for step in range(8)]
    assert curves.series["truth"] == [(-1.0, 15.0), (0.0, 17.0), (1.0, 19.0), (2.0, 21.0), (3.0, 23.0)]
    assert curves.series["forecast"][1] == (0.0, 18.0)
    assert list(curves.bands) == ["0.1 to 0.9", "0.25 to 0.75"]
    assert curves.bands["0.25 to 0.75"].high[1] == (0.0, 20.0)
    assert curves.x_label == "2013-07-26 22:00 to 2013-07-27 09:00"
    assert (2.0, "07-27") not in curves.x_labels
    assert (-6.0, "07-27") in curves.x_labels


def test_what_is_not_known_is_not_drawn():
    bare = course(truth=np.full((4, 2), np.nan), forecast=None, quantiles=None, levels=())
    curves = curves_of(bare, 0)
    assert list(curves.series) == ["past"]
    assert not curves.bands
    nothing = course(past=np.full((8, 2), np.nan), truth=np.full((4, 2), np.nan), forecast=None, quantiles=None)
    assert panels_of(nothing) == []
    assert picture_of(nothing).shape == (1, 1, 3)
    assert [panel.title for panel in panels_of(course())] == ["cpu", "disk"]


@pytest.mark.parametrize(("levels", "pairs"), [(0, []), (1, []), (2, [(0, 1)]), (3, [(0, 2)]), (7, [(0, 6), (2, 4)])])
def test_bands_are_the_outermost_and_the_innermost(levels, pairs):
    assert bands_of(levels) == pairs


@pytest.mark.parametrize(
    ("step", "count", "first", "texts"),
    [
        (5 * SECOND, 13, "2013-07-26T22:00:00", ["22:00:15", "22:00:30", "22:00:45", "22:01:00"]),
        (300 * SECOND, 25, "2013-07-26T22:00:00", ["22:30", "23:00", "23:30", "07-27"]),
        (HOUR, 48, "2013-07-26T22:00:00", ["07-27", "12:00", "07-28", "12:00"]),
        (DAY, 30, "2013-07-26T00:00:00", ["07-29", "08-05", "08-12", "08-19"]),
        (DAY, 800, "2013-07-26T00:00:00", ["2014-01", "2014-07", "2015-01", "2015-07"]),
        (DAY, 4000, "2013-07-26T00:00:00", ["2014", "2016", "2018", "2020", "2022", "2024"]),
        (DAY, 80_000, "1913-07-26T00:00:00", None),
    ],
)
def test_times_stand_where_units_begin(step, count, first, texts):
    times = np.datetime64(first, "us").astype(np.int64) + step * np.arange(count)
    labels = time_labels(times, -5)
    assert len({text for _, text in labels}) > 1
    assert texts is None or [text for _, text in labels] == texts
    for place, _ in labels:
        assert times[0] < times[int(place) + 5] <= times[-1]


def test_days_without_rows_have_no_room():
    days = np.array([n for n in range(15_000, 15_030) if n % 7 not in (2, 3)])
    labels = time_labels(days * DAY, 0)
    weeks = [days[int(place)] for place, _ in labels]
    assert all(week % 7 == 4 for week in weeks)
    assert [place for place, _ in labels] == sorted(place for place, _ in labels)


def test_a_span_says_no_more_than_there_is():
    assert span_of(np.array([15_000, 15_010]) * DAY) == "2011-01-26 to 2011-02-05"
    assert span_of(np.array([0, 61 * SECOND])) == "1970-01-01 to 1970-01-01 00:01:01"


def test_a_page_holds_every_target_and_what_counted():
    insight = Insight(np.full(12, 1 / 12), 8, {"past": {"cpu": 0.75, "disk": 0.25}, "future": {"distance": 1.0}})
    panels = insight.panels()
    assert [panel.title for panel in panels] == ["attention", "weights of variables"]
    page = page_of(course(truth=np.full((4, 2), math.nan)), panels)
    assert page.count("<svg") == 2
    assert page.count("<polygon") == 4
    assert page.count("data:image/png;base64,") == 2
    assert "<h1>&lt;one&gt;</h1>" in page
    assert "<img" not in page_of(course())
