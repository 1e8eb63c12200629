"""Windows of series: how long 100,000 rows take to become windows, and how many windows a second come out in batches.

python tests/benchmarks/bench_series.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from trainkit_task_series.splitting import windows_of
from trainkit_task_series.task import SeriesTask

ROWS, ROUNDS, BATCHES = 100_000, 5, 200
SHAPES = ((60, 5), (288, 96))


def best(seconds: list[float]) -> float:
    """Return the least: what disturbs a measurement only makes it longer."""
    return min(seconds)


def main() -> None:
    """Print a line for each shape of window."""
    torch.set_num_threads(1)
    frame = pl.DataFrame({"time": np.arange(ROWS) * 300 + 1_700_000_000, "cpu": np.random.default_rng(0).random(ROWS)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        frame.write_csv(path)
        for context, horizon in SHAPES:
            report(path, context, horizon)


def report(path: Path, context: int, horizon: int) -> None:
    """Measure reading, building and batches of one shape."""
    task = SeriesTask(context=context, horizon=horizon)
    started = time.perf_counter()
    splits = task.read(path, 0)
    reading = time.perf_counter() - started
    task.fit(splits.train)
    assert task.found is not None
    assert task.learned is not None
    building = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        windows_of(task.found.panel, task.found.parts[0], context, horizon, 1, 1)
        task.learned.store(task.found.panel)
        building.append(time.perf_counter() - started)
    line = f"{ROWS:,} rows, context {context}, horizon {horizon}: read {1e3 * reading:.0f} ms, "
    line += f"windows built in {1e3 * best(building):.1f} ms;"
    for size in (32, 256):
        indices = torch.randint(len(splits.train), (BATCHES, size)).tolist()
        rounds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for batch in indices:
                splits.train.__getitems__(batch)
            rounds.append(time.perf_counter() - started)
        line += f" {BATCHES * size / best(rounds):,.0f} windows/s in batches of {size};"
    print(line.rstrip(";"))


if __name__ == "__main__":
    main()
