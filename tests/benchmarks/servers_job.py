"""The four-metric job of `bench_servers.py`: what both contestants are asked, and how they are judged."""

from __future__ import annotations

import csv
import json
import resource
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TIME = "Timestamp [ms]"
TARGETS = ("cpu", "memory", "disk", "network")
COLUMNS = {
    "cpu": ("CPU usage [%]",),
    "memory": ("Memory usage [KB]", "Memory capacity provisioned [KB]"),
    "disk": ("Disk read throughput [KB/s]", "Disk write throughput [KB/s]"),
    "network": ("Network received throughput [KB/s]", "Network transmitted throughput [KB/s]"),
}
CONTEXT, HORIZON, HIDDEN, HEADS, DROPOUT, BATCH, CLIP = 288, 96, 32, 8, 0.1, 32, 0.1
LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
STEP = 300
VAL, TEST = "2013-07-22T00:00", "2013-07-26T12:00"
RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """Hold what a contestant is asked.

    Args:
        data: folder with a CSV file a server.
        out: a folder for what the contestant writes.
        units: in which the errors of each server and target are measured.
        seed: of weights and order.
        steps: of the optimizer, for each model.
        rate: of Adam.
        eval_stride: steps from one window of validation and of test to the next.
        spawned: when the process was asked for, by the monotonic clock.
    """

    data: str
    out: str
    units: list[list[float]]
    seed: int
    steps: int
    rate: float
    eval_stride: int
    spawned: float

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    def mark(self) -> dict[str, float]:
        """Return what this process has cost up to now: seconds since it was asked for, of CPU, and its peak memory."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        wall, cpu = time.monotonic() - self.spawned, used.ru_utime + used.ru_stime
        return {"wall": wall, "cpu": cpu, "peak": used.ru_maxrss / 1024}

    def tell(self, targets: list[list[float]], imported: dict[str, float], models: list[dict[str, float]]) -> None:
        """Write what came out: `sums_of` each target, and the marks after the imports and after each model."""
        facts: dict[str, Any] = {"targets": targets, "imported": imported, "models": models}
        (Path(self.out) / RESULT).write_text(json.dumps(facts))


def second(moment: str) -> int:
    """Return a moment in UTC as seconds since 1970."""
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())


def files(data: str) -> list[Path]:
    """Return the files of the servers in the order of their names."""
    return sorted(Path(data).glob("**/*.csv"), key=lambda path: path.stem)


def metric(target: str, *columns: Any) -> Any:
    """Return a target of its COLUMNS, be they numbers or arrays: memory in percent, disk and network both ways."""
    if target == "memory":
        used, capacity = columns
        return 100 * used / capacity
    return sum(columns)


def deviations(data: str) -> list[list[float]]:
    """Return for each server and target the standard deviation of its rows before validation."""
    units = []
    for path in files(data):
        with path.open(newline="") as file:
            reader = csv.reader(file, delimiter=";")
            header = [name.strip() for name in next(reader)]
            rows = [dict(zip(header, map(float, row), strict=True)) for row in reader]
        before = [row for row in rows if row[TIME] < second(VAL)]
        units.append(
            [
                statistics.pstdev(metric(target, *(row[name] for name in columns)) for row in before)
                for target, columns in COLUMNS.items()
            ]
        )
    return units


def sums_of(quantiles: Tensor, truth: Tensor, measured: Tensor, server: Tensor, units: Tensor) -> Tensor:
    """Return [T, 3]: the sum of the quantile losses, each the mean over LEVELS, their count, and the sum of the truth.

    Args:
        quantiles: [B, H, T, Q] in original units.
        truth: [B, H, T].
        measured: [B, H, T] whether the truth is known.
        server: [B] the number of the server.
        units: [servers, T] by which the losses are divided.
    """
    import torch

    levels = torch.tensor(LEVELS, dtype=torch.float64)
    known = torch.where(measured, truth, 0).double()
    error = (known.unsqueeze(-1) - quantiles.double()) / units[server][:, None, :, None]
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(-1).where(measured, 0)
    return torch.stack([loss, measured.double(), known], dim=-1).sum((0, 1))
