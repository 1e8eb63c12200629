"""The task on its embedded sample, on files with faults, and on a random walk."""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import trainkit
from trainkit.contracts import IGNORED_LABEL
from trainkit.errors import DataError, UsageError
from trainkit.testing import TaskConformance
from trainkit_task_stocks.actions import labels_of
from trainkit_task_stocks.features import COLUMNS, DEFAULT
from trainkit_task_stocks.task import BASE, SAMPLE, StocksTask, bounded

SMALL = {"context": 20, "horizon": 3, "dropout": 0.0, "stride": 4, "eval_stride": 4}
DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestStocksConformance(TaskConformance):
    component = "stocks"
    options = SMALL

    def written(self, folder):
        folder.mkdir()
        table = pl.read_csv(SAMPLE, infer_schema=False)
        for symbol in ("KO", "XOM"):
            table.filter(pl.col("symbol") == symbol).head(260).write_csv(folder / f"{symbol}.csv")
        return folder

    def input_paths(self, data):
        return [data / "KO.csv"]


class TestStocksBySeriesConformance(TestStocksConformance):
    options = {**SMALL, "forecaster": "series", "indicators": ("rsi_14",)}
    overfit_lr = 1e-2


def stocks(**options) -> StocksTask:
    base = {name: options.pop(name) for name in ("context", "horizon", "targets", "cuts", "stride") if name in options}
    return StocksTask({**BASE, **base}, **options)


def walk(folder: Path, days: int = 700, seed: int = 0, names: tuple[str, ...] = ("A", "B")) -> Path:
    """Write daily prices whose returns nobody can foresee."""
    draw = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    first = dt.date(2020, 1, 1)
    dates = [day for n in range(2 * days) if (day := first + dt.timedelta(days=n)).weekday() < 5][:days]
    for name in names:
        close = 100 * np.exp(np.cumsum(draw.normal(0, 0.012, days)))
        open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(draw.normal(0, 0.003, days))
        high = np.maximum(open_, close) * np.exp(np.abs(draw.normal(0, 0.004, days)))
        low = np.minimum(open_, close) * np.exp(-np.abs(draw.normal(0, 0.004, days)))
        columns = {"Date": [str(day) for day in dates], "Open": open_, "High": high, "Low": low, "Close": close}
        pl.DataFrame({**columns, "Volume": draw.integers(10**6, 10**7, days)}).write_csv(folder / f"{name}.csv")
    return folder


def test_a_bar_has_21_features_and_the_full_model_its_exact_size():
    task = stocks(size="full")
    task.fit(task.read(None, 0).train)
    assert task.found.schema.targets == (*COLUMNS, *DEFAULT)
    assert task.learned.layout.width == 21
    with torch.device("meta"):
        model = task.build_model()
    assert sum(p.numel() for p in model.parameters()) == 25_484_035 + 1797 * 21


def test_without_indicators_a_bar_has_five_features():
    task = stocks(size="full", indicators=())
    task.fit(task.read(None, 0).train)
    with torch.device("meta"):
        model = task.build_model()
    assert sum(p.numel() for p in model.parameters()) == 25_493_020


def test_named_targets_leave_indicators_as_inputs():
    task = stocks(targets=("close",))
    splits = task.read(None, 0)
    task.fit(splits.train)
    batch = splits.train.__getitems__([0, 1])
    assert batch["past_values"].shape == (2, 60, 1)
    assert batch["past_covariates"].shape == (2, 60, 20)
    assert task.build_model()(batch["past_values"], None, batch["past_covariates"])["prices"].shape == (2, 5, 1)
    with pytest.raises(UsageError, match="lacks the close"):
        stocks(targets=("open",))


def test_actions_are_those_of_unscaled_closes():
    task = stocks()
    splits = task.read(None, 0)
    task.fit(splits.train)
    batch = splits.test.__getitems__(list(range(50)))
    panel = task.found.panel
    rows = splits.test.windows.starts[:50].numpy()
    close = panel.values[:, 3]
    moves = close[rows] / close[rows - 1] - 1
    expected = np.where(moves > 0.005, 0, np.where(moves < -0.005, 2, 1))
    assert batch["action_labels"].tolist() == expected.tolist()
    assert len(set(expected)) == 3
    missing = {**batch, "future_observed_mask": torch.zeros_like(batch["future_observed_mask"])}
    assert set(labels_of(missing, 3, 0.005).tolist()) == {IGNORED_LABEL}


def test_other_data_has_actions_too(tmp_path):
    task = stocks()
    task.fit(task.read(None, 0).train)
    windows = task.whole(walk(tmp_path / "walk", 200))
    assert windows.__getitems__([0])["action_labels"].shape == (1,)
    assert "A" in windows.ids[0]
    assert windows.warnings


def test_forecasts_are_bars_that_can_be():
    batch = {"target_names": ("open", "high", "low", "close", "volume", "macd")}
    found = bounded(torch.tensor([[[5.0, 4.0, 6.0, 7.0, -3.0, -1.0]]]), batch)
    assert found[0, 0].tolist() == [5.0, 7.0, 4.0, 7.0, 0.0, -1.0]
    assert bounded(torch.tensor([[[-5.0]]]), {"target_names": ("close",)}).tolist() == [[[0.0]]]


def faulty(folder: Path) -> Path:
    folder.mkdir()
    walk(folder, 300, names=("A",))
    lines = (folder / "A.csv").read_text().splitlines()
    cells = lines[100].split(",")
    lines[100] = ",".join([cells[0], cells[1], "", *cells[3:]])
    (folder / "A.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_faults_are_mended_left_out_or_refused_by_policy(tmp_path):
    data = faulty(tmp_path / "faulty")
    counts = {}
    for policy in ("repair", "drop"):
        task = stocks(policy=policy)
        splits = task.read(data, 0)
        counts[policy] = len(task.found.panel)
        assert any("A.csv:101" in warning for warning in splits.warnings)
    # 59 bars of warm-up are no rows of windows.
    assert counts["repair"] > counts["drop"]
    with pytest.raises(DataError, match="break the rules"):
        stocks(policy="raise").read(data, 0)
    found = stocks(policy="raise").inspect(data)
    assert [finding.place for finding in found.findings if finding.is_fault] == ["A.csv:101"]


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "yahoo").glob("*.csv")))
def test_price_files_go_all_the_way(name, tmp_path):
    shutil.copy(DATA / "yahoo" / name, tmp_path / name)
    task = stocks(context=5, horizon=1, indicators=())
    splits = task.read(tmp_path, 0)
    task.fit(splits.train)
    assert torch.isfinite(splits.train.__getitems__([0])["past_values"]).all()


def test_answers_tell_the_next_trading_days_and_the_odds_of_actions(tmp_path):
    data = walk(tmp_path / "walk", 300)
    task = stocks()
    task.fit(task.read(data, 0).train)
    inputs = task.inputs([data / "A.csv"])
    samples = inputs.__getitems__([0])
    with torch.no_grad():
        answer = task.answers(task.build_model().eval(), task.collate(samples), samples)[0]
    told = json.loads(answer.files[".json"])
    assert math.isclose(sum(told["action"].values()), 1, abs_tol=1e-3)
    days = [dt.date.fromisoformat(time[:10]) for time in told["times"]]
    last = dt.date.fromisoformat((data / "A.csv").read_text().splitlines()[-1][:10])
    assert all(day.weekday() < 5 for day in days)
    assert last < days[0] <= last + dt.timedelta(days=3)
    bars = {name: told["targets"][name]["forecast"] for name in ("open", "high", "low", "close")}
    assert all(
        high >= max(rest) for high, *rest in zip(*(bars[n] for n in ("high", "open", "low", "close")), strict=True)
    )


class Foresight(StocksTask):
    """See tomorrow's return today: the leak that the test below has to find."""

    def tables(self, paths):
        tables, findings = super().tables(paths)
        for place, table in enumerate(tables):
            tomorrow = (table.frame["close"].shift(-1) / table.frame["close"] - 1).fill_null(0.0)
            tables[place] = replace(table, frame=table.frame.with_columns(rsi_14=tomorrow))
        return tables, findings


@pytest.mark.parametrize("task_class", [StocksTask, Foresight])
def test_on_a_random_walk_nobody_beats_the_last_price_who_does_not_see_the_next(task_class, tmp_path):
    data = walk(tmp_path / "walk", 800, names=("A", "B", "C"))
    base = {**BASE, "context": 10, "horizon": 1}
    settings = {
        "out": str(tmp_path / "run"),
        "threads": 1,
        "optimizer.lr": 2e-3,
        "loop.max_steps": 250,
        "loop.batch_size": 64,
        "evaluate.every_epochs": None,
        "metric.forecast-error.series_figures": [],
    }
    done = trainkit.run(
        task=task_class(base, indicators=("rsi_14",), dropout=0.0),
        data=data,
        strategy="baseline",
        metric="forecast-error",
        callback="none",
        settings=settings,
    )
    key = "test/forecast-error/mae/close"
    results = done.summary["results"]
    ratio = results["model"][key] / results["persistence"][key]
    if task_class is Foresight:
        assert ratio < 0.8
    else:
        assert 0.99 < ratio < 1.2
