"""Four metrics of servers, end to end: one trainkit model beside four models of pytorch-forecasting under Lightning.

    pip install --target peers pytorch-forecasting==1.8.0 lightning==2.6.6
    PYTHONPATH=peers python tests/benchmarks/bench_servers.py DATA [--seeds 5] [--steps 200]

DATA holds Bitbrains traces as published (`bitbrains-rnd`). cpu, memory, disk and network; context 288, horizon 96,
hidden 32, 8 heads, 7 quantiles; batches of 32, Adam, gradients clipped at .1, one thread. Reading, training, one
validation, test and all that is written count; trainkit's baselines and pictures are among that. Every model takes the
same number of steps over as many windows, and the sums of the truth show that all are judged by the same windows of the
test. `servers_naive.py` is the naive way: a model for each metric, one after the other in one process. Beside it the
single-target ratio: trainkit with cpu as its only target and the others as inputs, beside the first of the four, from
the start of the process to its end.

The loss is the mean over levels, steps, windows, servers and targets, in standard deviations of the server and target
before validation. Peak memory is that of the whole process. Seeds are pairs: ratios are medians of theirs. Without
pytorch-forecasting, trainkit runs alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers_job import (
    BATCH,
    CLIP,
    CONTEXT,
    DROPOUT,
    HEADS,
    HIDDEN,
    HORIZON,
    LEVELS,
    RESULT,
    TARGETS,
    TEST,
    VAL,
    Job,
    deviations,
    sums_of,
)

ONE, FOUR, NAIVE = "trainkit, 1 target", "trainkit, 4 targets", "pytorch-forecasting, 4 models"
NAIVE_ONE = "pytorch-forecasting, 1 model"
TRUTH_WITHIN = 1e-5


def run_ours(job: Job, targets: int) -> None:
    """Do the job with one model of the first targets."""
    import polars  # noqa: F401
    import torch
    import trainkit_task_servers.task  # noqa: F401
    from trainkit import SumMetric, run

    units = torch.tensor(job.units, dtype=torch.float64)[:, :targets]

    class Judged(SumMetric):
        """Sum what both contestants are judged by."""

        def update(self, forecast_quantiles: Any, truth: Any, truth_mask: Any, series: Any) -> None:
            self.add(sums=sums_of(forecast_quantiles, truth, truth_mask, series, units))

        def compute(self) -> dict[str, float]:
            loss, count, _ = self.sums["sums"].sum(0).tolist()
            parts = self.sums["sums"].flatten().tolist()
            return {"loss": loss / count} | {f"sum-{place:02}": part for place, part in enumerate(parts)}

    imported = job.mark()
    result = run(
        task="servers",
        data=job.data,
        strategy="baseline",
        optimizer="adamw",
        scheduler="constant",
        metric=["forecast-error", Judged()],
        settings={
            "task.targets": TARGETS[:targets],
            "task.observed": TARGETS[targets:],
            "task.context": CONTEXT,
            "task.horizon": HORIZON,
            "task.hidden": HIDDEN,
            "task.heads": HEADS,
            "task.dropout": DROPOUT,
            "task.quantiles": LEVELS,
            "task.cuts": (VAL, TEST),
            "task.stride": 1,
            "task.eval_stride": job.eval_stride,
            "loop.batch_size": BATCH,
            "loop.max_steps": job.steps,
            "loop.clip": CLIP,
            "optimizer.lr": job.rate,
            "optimizer.weight_decay": 0.0,
            "evaluate.train_samples": 0,
            "seed": job.seed,
            "out": str(Path(job.out) / "run"),
        },
    )
    figures = result.summary["results"]["model"].items()
    sums = [value for tag, value in figures if tag.startswith("test/") and tag[:-2].endswith("/sum-")]
    job.tell([sums[place : place + 3] for place in range(0, len(sums), 3)], imported, [job.mark()])


def run_naive(job: Job) -> None:
    """Do the job with a model for each target."""
    import servers_naive

    servers_naive.run(job)


CONTESTANTS: dict[str, Callable[[Job], None]] = {
    ONE: lambda job: run_ours(job, 1),
    FOUR: lambda job: run_ours(job, len(TARGETS)),
    NAIVE: run_naive,
}


@dataclass(frozen=True)
class Cost:
    """Hold what a contestant's process came to.

    Args:
        wall: seconds from its start to its end.
        job: the same without its imports.
        cpu: seconds of CPU.
        peak: of resident memory, MiB.
        losses: mean quantile loss of each target.
        seen: count and sum of the truth of each target.
    """

    wall: float
    job: float
    cpu: float
    peak: float
    losses: list[float]
    seen: list[tuple[float, float]]

    @property
    def loss(self) -> float:
        """Return the mean loss of the targets."""
        return statistics.mean(self.losses)


def measured(name: str, job: Job) -> dict[str, Cost]:
    """Run a contestant in a process of its own; of the naive way its first model is a contestant, too."""
    log = Path(job.out) / "log.txt"
    with log.open("w") as output:
        command = [sys.executable, __file__, "--contestant", name, "--job", job.text()]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - job.spawned
    if process.returncode:
        raise RuntimeError(f"{name} failed:\n{log.read_text()[-3000:]}")
    facts = json.loads((Path(job.out) / RESULT).read_text())
    imported = facts["imported"]["wall"]
    losses = [loss / count for loss, count, _ in facts["targets"]]
    seen = [(count, truth) for _, count, truth in facts["targets"]]
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    found = {name: Cost(wall, wall - imported, cpu, peak, losses, seen)}
    if name == NAIVE:
        first = facts["models"][0]
        found[NAIVE_ONE] = Cost(
            first["wall"], first["wall"] - imported, first["cpu"], first["peak"], losses[:1], seen[:1]
        )
    return found


def check_same_windows(costs: dict[str, Cost]) -> None:
    """Raise RuntimeError unless all were judged by the same truth."""
    for name, cost in costs.items():
        for (count, truth), (other_count, other) in zip(cost.seen, costs[FOUR].seen, strict=False):
            if count != other_count or abs(truth - other) > TRUTH_WITHIN * abs(other):
                raise RuntimeError(f"{name} saw {count:.0f} values that sum to {truth}, not {other_count:.0f}, {other}")


def line(name: str, costs: list[Cost]) -> str:
    """Return the medians of a contestant as a line of the table."""

    def middle(figure: Callable[[Cost], float]) -> float:
        return statistics.median(figure(cost) for cost in costs)

    text = f"{name:<32}{middle(lambda c: c.wall):>9.1f}{middle(lambda c: c.job):>11.1f}{middle(lambda c: c.cpu):>9.1f}"
    text += f"{middle(lambda c: c.peak):>10.0f}{middle(lambda c: c.loss):>10.4f}   "
    targets = range(len(costs[0].losses))
    return text + " ".join(f"{statistics.median(cost.losses[target] for cost in costs):.4f}" for target in targets)


def compared(title: str, ours: list[Cost], theirs: list[Cost]) -> str:
    """Return the ratios of pairs as a line."""

    def ratio(figure: Callable[[Cost], float], invert: bool = False) -> str:
        each = [figure(a) / figure(b) for a, b in zip(theirs, ours, strict=True)]
        each = sorted(1 / value if invert else value for value in each)
        return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"

    text = f"{title}: {ratio(lambda c: c.wall)}x less wall time, {ratio(lambda c: c.job)}x without imports, "
    text += f"{ratio(lambda c: c.cpu)}x less CPU time; {ratio(lambda c: c.peak, invert=True)} of the memory; "
    return text + f"{ratio(lambda c: c.loss, invert=True)} of the loss"


def main(asked: argparse.Namespace) -> None:
    """Run all contestants seed by seed, and print their medians and ratios."""
    names = [ONE, FOUR] + ([NAIVE] if importlib.util.find_spec("pytorch_forecasting") else [])
    if NAIVE not in names:
        print("pytorch-forecasting is not installed: trainkit alone")
    units, costs = deviations(asked.data), {name: [] for name in (ONE, NAIVE_ONE, FOUR, NAIVE)}
    for seed in range(asked.seeds):
        found: dict[str, Cost] = {}
        for name in names if seed % 2 else reversed(names):
            with tempfile.TemporaryDirectory() as out:
                job = Job(asked.data, out, units, seed, asked.steps, asked.rate, asked.eval_stride, time.monotonic())
                found |= measured(name, job)
        check_same_windows(found)
        for name, cost in found.items():
            costs[name].append(cost)
            print(f"seed {seed}  {line(name, [cost])}", flush=True)
    print(f"\nmedians of {asked.seeds} seeds, {asked.steps} steps a model at a rate of {asked.rate:g}, one thread")
    print(
        f"{'':<32}{'wall, s':>9}{'no imports':>11}{'CPU, s':>9}{'peak MiB':>10}{'loss':>10}   cpu memory disk network"
    )
    for name, each in costs.items():
        if each:
            print(line(name, each))
    if NAIVE in names:
        print(compared("four targets", costs[FOUR], costs[NAIVE]))
        print(compared("one target", costs[ONE], costs[NAIVE_ONE]))


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of Bitbrains traces")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--eval-stride", type=int, default=24)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    if given.contestant:
        import torch

        torch.set_num_threads(1)
        CONTESTANTS[given.contestant](Job(**json.loads(given.job)))
    elif given.data:
        main(given)
    else:
        print("no data: name the folder of Bitbrains traces, as in bench_servers.py bitbrains-rnd")
