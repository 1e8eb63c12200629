"""Windows of series, beside pytorch-forecasting's: how long 100,000 rows take to be built, and how fast batches come.

    pip install --target peers pytorch-forecasting==1.8.0 lightning==2.6.6
    PYTHONPATH=peers python tests/benchmarks/bench_series.py [ROUNDS]

Four series of 25,000 rows, one target and the hour and the weekday on a circle, one thread. `built` begins with sorted
rows in memory and ends before the first batch: here windows, scales and scaled rows, there a TimeSeriesDataSet.
`windows a second` is an epoch's order and its batches, shuffled, as a training loop gets them: here an epoch from the
core's loader, there the first batches from the data set's DataLoader without worker processes, which would slow it
down. Both take turns in one process, which keeps freed memory as a run does, the median of three builds each; the
ratios are medians of those of the rounds.
Without pytorch-forecasting, trainkit is measured alone.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from trainkit.data import BatchMaker, EpochBatches, draw
from trainkit.heap import keep_heap
from trainkit_task_series.splitting import windows_of
from trainkit_task_series.task import SeriesTask

ROWS, SERIES, STEP, BEGIN = 100_000, 4, 300, 1_700_000_100
SHAPES = ((60, 5), (288, 96))
BUILDS, PEER_BATCHES = 3, 40
NAMED = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")


def table() -> pl.DataFrame:
    """Return the rows of all series."""
    place = np.tile(np.arange(ROWS // SERIES), SERIES)
    names = np.repeat([f"server {number}" for number in range(SERIES)], ROWS // SERIES)
    cpu = np.random.default_rng(0).random(ROWS)
    return pl.DataFrame({"time": place * STEP + BEGIN, "server": names, "cpu": cpu})


class Ours:
    """Build and batch by trainkit."""

    def __init__(self, path: Path, context: int, horizon: int) -> None:
        self.task = SeriesTask(series="server", context=context, horizon=horizon, split=(1.0, 0.0, 0.0))
        started = time.perf_counter()
        self.train: Any = self.task.read(path, 0).train
        self.reading = time.perf_counter() - started

    def build(self) -> None:
        """Find the windows, learn the scales, scale the rows."""
        found = self.task.found
        assert found is not None
        windows_of(found.panel, found.parts[0], self.task.context, self.task.horizon, 1, 1)
        self.task.fit(self.train)

    def batches(self, size: int) -> Iterator[Any]:
        """Yield the batches of an epoch."""
        maker = BatchMaker(self.train, self.task.collate)
        yield from EpochBatches(maker, draw(range(len(self.train)), 1, 0, 0), 0, size).iterate(0, 0, False)


class Peer:
    """Build and batch by pytorch-forecasting."""

    def __init__(self, rows: pl.DataFrame, context: int, horizon: int) -> None:
        warnings.filterwarnings("ignore")
        import pandas

        seconds = rows["time"].to_numpy()
        turns = {"hour": seconds % 86_400 / 86_400, "weekday": (seconds // 86_400 + 3) % 7 / 7}
        circle = {f"{name}_sin": np.sin(2 * np.pi * turn) for name, turn in turns.items()}
        circle |= {f"{name}_cos": np.cos(2 * np.pi * turn) for name, turn in turns.items()}
        columns = {name: rows[name].to_list() for name in ("server", "cpu")}
        self.frame = pandas.DataFrame({**columns, "place": seconds // STEP, **circle})
        self.context, self.horizon, self.data = context, horizon, None

    def build(self) -> None:
        """Make the data set."""
        from pytorch_forecasting import TimeSeriesDataSet

        self.data = TimeSeriesDataSet(
            self.frame,
            time_idx="place",
            target="cpu",
            group_ids=["server"],
            max_encoder_length=self.context,
            max_prediction_length=self.horizon,
            time_varying_known_reals=list(NAMED),
            time_varying_unknown_reals=["cpu"],
        )

    def batches(self, size: int) -> Iterator[Any]:
        """Yield the batches of an epoch."""
        assert self.data is not None
        yield from self.data.to_dataloader(train=True, batch_size=size, num_workers=0)


def building(work: Callable[[], None]) -> float:
    """Return the median of some builds."""
    return statistics.median(seconds(work) for _ in range(BUILDS))


def seconds(work: Callable[[], None]) -> float:
    """Return how long some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate(batches: Iterable[Any], size: int, count: int | None = None) -> float:
    """Return windows a second of an epoch or of its first batches, its order included."""
    started = time.perf_counter()
    taken = sum(1 for _ in itertools.islice(batches, count))
    return taken * size / (time.perf_counter() - started)


def report(path: Path, rows: pl.DataFrame, context: int, horizon: int, rounds: int) -> None:
    """Measure one shape of window and print its lines."""
    ours = Ours(path, context, horizon)
    peer = Peer(rows, context, horizon) if importlib.util.find_spec("pytorch_forecasting") else None
    built, rates, built_there, rates_there, large = [], [], [], [], []
    for _ in range(rounds + 1):
        built.append(building(ours.build))
        rates.append(rate(ours.batches(32), 32))
        large.append(rate(ours.batches(256), 256))
        if peer is not None:
            built_there.append(building(peer.build))
            rates_there.append(rate(peer.batches(32), 32, PEER_BATCHES))
    print(f"{ROWS:,} rows, context {context}, horizon {horizon}: {rounds} rounds, read in {1e3 * ours.reading:.0f} ms")
    line = (
        f"  trainkit: built in {1e3 * middle(built):.1f} ms; {middle(rates):,.0f} windows a second in batches of 32, "
    )
    print(line + f"{middle(large):,.0f} in batches of 256")
    if peer is not None:
        faster = [there / here for there, here in zip(built_there, built, strict=True)]
        more = [here / there for here, there in zip(rates, rates_there, strict=True)]
        line = f"  pytorch-forecasting: built in {1e3 * middle(built_there):.0f} ms; {middle(rates_there):,.0f} windows"
        print(line + f" a second in batches of 32; trainkit {middle(faster):.0f}x and {middle(more):.0f}x as fast")


def middle(figures: list[float]) -> float:
    """Return the median of all rounds but the first, which warms up."""
    return statistics.median(figures[1:])


def main() -> None:
    """Print the figures of each shape of window."""
    torch.set_num_threads(1)
    keep_heap()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if not importlib.util.find_spec("pytorch_forecasting"):
        print("pytorch-forecasting is not installed: trainkit alone")
    rows = table()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "servers.csv"
        rows.write_csv(path)
        for context, horizon in SHAPES:
            report(path, rows, context, horizon, rounds)


if __name__ == "__main__":
    main()
