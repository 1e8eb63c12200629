"""What forecasts of a run's time are worth: the plan's, and the run's own after 5 % of it, against what it took.

Whole runs with stages, evaluations and folds, one thread, one after another; the plan is costed right before the run.
On a machine that does other work the clock takes forecast and fact at different loads: with --cpu, all seconds, those
that trainkit measures included, are the process's time on the processor.

    python tests/benchmarks/bench_forecast.py [--cpu] [JOB ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from trainkit import hookimpl
from trainkit.api import cost_of, preview, run
from trainkit.costs.whole import left_of_whole
from trainkit.folds.plan import plan_folds
from trainkit.live import Run

JOBS: dict[str, dict[str, Any]] = {
    "layout": {"task": "layout", "strategy": "phase1", "settings": {"loop.max_steps": 160}},
    "layout-stages": {
        "task": "layout",
        "strategy": "phase2",
        "settings": {"loop.epochs": 6, "loop.variants": 15, "evaluate.every_steps": 25},
    },
    "series": {"task": "series", "strategy": "phase2", "settings": {}},
    "folds": {"task": "layout", "strategy": "phase1", "settings": {"folds": 3, "loop.max_steps": 60}},
    "series-folds": {"task": "series", "strategy": "phase2", "settings": {"folds": 3}},
}
SHARE = 0.05


class Watch:
    """Keep what was said of the end of all runs after a share of their steps, and when the first of them began."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.began: float | None = None
        self.said = float("nan")

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        """Note when the first run begins."""
        if self.began is None:
            self.began = time.perf_counter() - run.forecast.elapsed()

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Keep the first forecast after the share."""
        before, steps = (
            (0, run.total_steps) if run.part_of is None else (run.part_of.steps_before, run.part_of.total_steps)
        )
        if self.said != self.said and (before + run.moment.step) / steps >= self.share and "time/eta" in row:
            assert self.began is not None
            self.said = time.perf_counter() - self.began + left_of_whole(run, row["time/eta"])


def main(names: list[str]) -> None:
    """Print a line for each job."""
    if "--cpu" in names:
        names.remove("--cpu")
        time.perf_counter = time.process_time
    print(f"{'job':<14} {'steps':>5} {'plan s':>7} {'at 5 % s':>8} {'fact s':>7} {'plan off':>8} {'5 % off':>8}")
    for name in names or list(JOBS):
        job = JOBS[name]
        settings = {"threads": 1, "callback": ["no:early-stopping"], **job["settings"]}
        draft = preview(**{**job, "settings": settings})
        cost = cost_of(draft)
        forecast = plan_folds(draft).seconds(draft, cost) if draft.settings.folds else cost.seconds
        watch = Watch(SHARE)
        with tempfile.TemporaryDirectory() as folder:
            settings["out"] = str(Path(folder) / "run")
            result = run(**{**job, "settings": settings}, listeners=[("watch", watch)])
            assert watch.began is not None
            fact = time.perf_counter() - watch.began
        if result.status != "done":
            raise SystemExit(f"{name}: the run is {result.status}, so there is nothing to compare")
        print(
            f"{name:<14} {result.summary['steps']:>5} {forecast:>7.1f} {watch.said:>8.1f} {fact:>7.1f} "
            f"{forecast / fact - 1:>+8.0%} {watch.said / fact - 1:>+8.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
