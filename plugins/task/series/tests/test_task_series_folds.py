"""Folds in time: nothing of validation is trained on, by target, by window or by scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.errors import DataError, UsageError
from trainkit_task_series.folds import Fold, folded
from trainkit_task_series.grid import Grid
from trainkit_task_series.learned import Learned
from trainkit_task_series.panel import in_order, to_panel
from trainkit_task_series.relative import usual_span
from trainkit_task_series.rows import Rows
from trainkit_task_series.splitting import parts_of, windows_of
from trainkit_task_series.task import SeriesTask

STEP = 300_000_000
FOLDINGS = ("expanding", "rolling", "purged")
SPLIT = (0.6, 0.2, 0.2)


def panel_of(series):
    """Return a panel of one target; `series` gives for each where its stretches begin and how long they are."""
    places = [np.concatenate([np.arange(length) + begin for begin, length in one]) for one in series]
    owner = np.concatenate([np.full(len(mine), number) for number, mine in enumerate(places)])
    times = np.concatenate(places) * STEP
    values = np.random.default_rng(0).normal(size=(len(times), 1))
    names = tuple(f"s{number}" for number in range(len(series)))
    rows = in_order(Rows(names, owner, times, values, ((),) * len(series)))[0]
    return to_panel(rows, Grid.of(rows, STEP), 3, 1)[0]


@st.composite
def panels(draw):
    series = []
    for _ in range(draw(st.integers(1, 3))):
        begin, stretches = draw(st.integers(0, 40)), []
        for _ in range(draw(st.integers(1, 3))):
            length = draw(st.integers(20, 90))
            stretches.append((begin, length))
            # Gaps of both sorts: missing values, and ends of segments.
            begin += length + draw(st.sampled_from([2, 3, 9, 30]))
        series.append(stretches)
    return panel_of(series)


def cases(panel, folding, count, purge, horizon):
    """Yield parts of each fold, if there are as many."""
    parts = parts_of(panel, SPLIT, (), purge)
    for number in range(1, count + 1):
        try:
            yield number, parts, folded(panel, parts, Fold(number, count, folding), purge, horizon)
        except DataError:
            return


def spans(panel, part, context, horizon):
    """Return rows of each window [W, C + H]; the last H are targets."""
    starts = windows_of(panel, part, context, horizon, 1, 1)
    return starts[:, None] + np.arange(-context, horizon)


@settings(max_examples=60, deadline=None)
@given(panels(), st.sampled_from(FOLDINGS), st.integers(2, 4), st.integers(0, 6), st.integers(1, 8), st.integers(1, 12))
def test_no_fold_trains_on_what_it_validates_on(panel, folding, count, purge, horizon, context):
    for _, plain, (train, val, test) in cases(panel, folding, count, purge, horizon):
        assert test == plain[2]
        shown = {part.name: spans(panel, part, context, horizon) for part in (train, val, test)}
        targets = {name: set(rows[:, context:].ravel().tolist()) for name, rows in shown.items()}
        assert not targets["train"] & targets["val"]
        assert not targets["val"] & targets["test"]
        assert not targets["train"] & targets["test"]
        trained = panel.times[shown["train"]]
        near = (trained >= val.begin - purge * STEP) & (trained < val.end + purge * STEP)
        assert not near.any()
        # Windows lie on one side: none spans validation with its ends.
        assert not ((trained[:, 0] < val.begin) & (trained[:, -1] >= val.end)).any()
        learned = train.rows(panel)
        assert learned[shown["train"]].all()
        assert not (learned & val.rows(panel)).any()
        assert not (learned & test.rows(panel)).any()


@settings(max_examples=40, deadline=None)
@given(panels(), st.integers(2, 5), st.integers(0, 6))
def test_purged_folds_together_validate_on_each_row_before_the_test_once(panel, count, purge):
    found = [parts for _, _, parts in cases(panel, "purged", count, purge, 1)]
    if len(found) < count:
        assert not found
        return
    times = np.zeros(len(panel), int)
    for _, val, _ in found:
        times += val.rows(panel)
    before = panel.times < parts_of(panel, SPLIT, (), purge)[1].end
    assert np.array_equal(times, before.astype(int))
    sizes = [int(val.rows(panel).sum()) for _, val, _ in found]
    assert max(sizes) - min(sizes) <= 2 * len(panel.names)


@settings(max_examples=40, deadline=None)
@given(panels(), st.sampled_from(["expanding", "rolling"]), st.integers(2, 4), st.integers(0, 6))
def test_the_origin_moves_forward_to_the_split_without_folds(panel, folding, count, purge):
    found = list(cases(panel, folding, count, purge, 1))
    if not found:
        return
    plain = found[0][1]
    vals = [val for _, _, (_, val, _) in found]
    assert vals[-1] == plain[1]
    assert [val.end for val in vals[:-1]] == [val.begin for val in vals[1:]]
    lengths = [train.end - train.begin for _, _, (train, _, _) in found]
    assert all(train.end == val.begin - purge * STEP or train.begin == train.end for _, _, (train, val, _) in found)
    if folding == "rolling":
        assert len(set(lengths)) == 1
    else:
        assert found[-1][2] == plain
        assert {train.begin for _, _, (train, _, _) in found} == {plain[0].begin}


def test_folds_of_a_hundred_rows():
    panel = panel_of([[(0, 100)]])
    parts = parts_of(panel, SPLIT, (), 2)
    steps = {
        (folding, number): [
            tuple((begin // STEP, end // STEP) for begin, end in part.spans)
            for part in folded(panel, parts, Fold(number, 3, folding), 2, 5)[:2]
        ]
        for folding in FOLDINGS
        for number in (1, 2, 3)
    }
    # Validation has the rows 60 to 77, as two before the test are in no part.
    assert steps["expanding", 1] == [((0, 22),), ((24, 42),)]
    assert steps["expanding", 2] == [((0, 40),), ((42, 60),)]
    assert steps["expanding", 3] == [((0, 58),), ((60, 78),)]
    assert steps["rolling", 2] == [((18, 40),), ((42, 60),)]
    assert steps["purged", 1] == [((28, 78),), ((0, 26),)]
    assert steps["purged", 2] == [((0, 24), (54, 78)), ((26, 52),)]
    assert steps["purged", 3] == [((0, 50),), ((52, 78),)]


def test_strides_begin_anew_after_the_hole():
    panel = panel_of([[(0, 100)]])
    train = folded(panel, parts_of(panel, SPLIT, (), 0), Fold(2, 4, "purged"), 0, 5)[0]
    assert train.spans == ((0, 20 * STEP), (40 * STEP, 80 * STEP))
    assert windows_of(panel, train, 10, 5, 4, 1).tolist() == [10, 14, *range(50, 76, 4)]


@pytest.mark.parametrize("options", [{}, {"relative": ("load",)}, {"step": "row"}], ids=["plain", "relative", "bars"])
@pytest.mark.parametrize("folding", FOLDINGS)
def test_scales_differ_by_fold_and_never_see_validation(csv, folding, options):
    path, learned = csv(rows=600), []
    for number in (1, 2, 3):
        task = SeriesTask(
            context=24, horizon=6, season=12, split=SPLIT, purge=4, fold=f"{number}/3", folding=folding, **options
        )
        splits = task.read(path, 0)
        task.fit(splits.train)
        found = task.found
        assert f"fold {number}/3, {folding}" in splits.source
        assert found.facts()["fold"] == f"{number}/3, {folding}"
        panel, (train, val, test) = found.panel, found.parts
        outside = ~train.rows(panel)
        assert outside[val.rows(panel) | test.rows(panel)].all()
        panel.values[outside] = 1e9 * np.arange(outside.sum())[:, None]
        again = Learned.from_rows(
            panel,
            found.schema,
            train.rows(panel),
            found.season,
            found.calendar,
            "standard",
            task.relative,
            usual_span(task.context),
        )
        assert again.state_dict() == task.learned.state_dict()
        learned.append(task.learned.scaling)
    for fact in ("loc", "scale"):
        assert len({float(getattr(scaling, fact)[0, 0]) for scaling in learned}) == 3


@pytest.mark.parametrize("text", ["6/5", "0/5", "1/1", "2", "a/b", "-1/5", "1/5/2", ""])
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(UsageError, match="names no fold"):
        SeriesTask(fold=text)


def message(path, **options):
    with pytest.raises(DataError) as caught:
        SeriesTask(**{"context": 24, "horizon": 6, **options}).read(path, 0)
    return str(caught.value)


def test_folds_that_do_not_fit_are_refused_with_numbers(csv):
    path = csv(rows=400)
    told = message(path, fold="1/9")
    assert "9 folds do not fit" in told
    assert "each validates on 60 rows, as the validation part has, and 280 rows lie before that" in told
    assert "give at most 5 folds, a smaller share of validation" in told
    assert "the validation part has no row" in message(path, fold="1/2", split=(0.8, 0.0, 0.2))
    told = message(path, fold="1/80", folding="purged")
    assert "80 folds do not fit" in told
    assert "one of them validates on 4 steps of a series, fewer than task.horizon = 6" in told


def test_a_fold_without_windows_is_refused_with_numbers(csv):
    path = csv(rows=400)
    told = message(path, fold="1/5", context=60)
    assert "there is no window to train on" in told
    assert "the longest segment has 400 steps, and at most 40 of one lie in the training part" in told
    # The first of purged folds has nothing before it for the past of its windows.
    told = message(path, fold="1/10", folding="purged", context=60)
    assert "there is no window to validate on" in told
    assert "6 steps in it and 60 before them" in told
    assert "at most 34 of one lie in the validation part" in told
    found = SeriesTask(context=60, horizon=6, fold="1/10", folding="purged").inspect(path)
    assert [finding.rule for finding in found.findings if finding.is_fault] == ["no window"]


def test_all_rows_before_the_test_train_where_none_are_validated_on(csv):
    path = csv(rows=400)
    options = {"context": 24, "horizon": 6, "season": 12, "split": SPLIT, "purge": 4}
    plain, whole = (SeriesTask(**options, **more).read(path, 0) for more in ({}, {"fold": "all"}))
    assert whole.val is None
    assert len(whole.test) == len(plain.test)
    assert whole.source.endswith("; fold all")
    task = SeriesTask(**options, fold="all")
    splits = task.read(path, 0)
    begin, end = task.found.parts[0].begin, task.found.parts[0].end
    assert (begin, end) == (task.found.parts[0].begin, task.found.parts[1].begin)
    assert len(splits.train) > len(plain.train) + len(plain.val)
    task.fit(splits.train)
    assert task.build_model() is not None


def test_a_fold_of_a_fold_is_refused():
    assert SeriesTask().fold_options("2/5") == {"fold": "2/5"}
    with pytest.raises(UsageError, match=r"task\.fold = 1/5, expanding is a fold already"):
        SeriesTask(fold="1/5").fold_options("2/5")
