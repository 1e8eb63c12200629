"""What processes that prepare batches are worth, and whether `loop.workers=auto` finds it out: whole runs in turn.

Two jobs, batch 16, one thread: PNG files that are decoded and made smaller for every batch, and the same pictures as a
tensor in memory, under a small convolutional network. `auto` measures within the run, so its time includes the search.

    python tests/benchmarks/bench_workers.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from baretask import BareTask
from PIL import Image
from torch import Tensor, nn
from trainkit.compose import compose
from trainkit.config import layer_of
from trainkit.contracts import Splits
from trainkit.data import TensorData
from trainkit.draft import make_draft
from trainkit.loop import train
from trainkit.registry import Registry

FILES, SIDE, SMALL, STEPS, BATCH = 256, 384, 96, 320, 16


class Pictures:
    """Decode PNG files and make them smaller, anew for every batch."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return STEPS * BATCH

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Return pictures [B, 3, SMALL, SMALL] and labels [B]."""
        found = []
        for index in indices:
            with Image.open(self.paths[index % FILES]) as picture:
                found.append(np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BOX)))
        pictures = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
        return {"input": pictures, "labels": torch.tensor([index % 10 for index in indices])}


def in_memory(folder: Path) -> TensorData:
    """Return the same pictures as tensors."""
    data = Pictures(folder)
    parts = [data.__getitems__(list(range(start, start + BATCH))) for start in range(0, FILES, BATCH)]
    repeats = STEPS * BATCH // FILES
    return TensorData({name: torch.cat([part[name] for part in parts] * repeats) for name in ("input", "labels")})


def network() -> nn.Module:
    """Return a small convolutional network."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
    )


def built() -> nn.Module:
    """Return the network with its shapes known."""
    model = network()
    model(torch.zeros(1, 3, SMALL, SMALL))
    return model


def seconds(splits: Splits, workers: int | str) -> tuple[float, str]:
    """Return how long the loop takes, and what was chosen."""
    settings = {
        "task": "live:task",
        "strategy": "baseline",
        "loss": "cross-entropy",
        "loop.batch_size": BATCH,
        "loop.epochs": 1,
        "loop.workers": workers,
        "evaluate.every_epochs": None,
        "device": "cpu",
    }
    live = {"live:task": BareTask(lambda: splits, built, "input", "labels", "logits")}
    run = compose(make_draft([layer_of(settings, "benchmark")], Registry(), live))
    started = time.perf_counter()
    train(run)
    return time.perf_counter() - started, f"{run.workers.now} processes: {run.workers.reason or 'as asked'}"


def main(rounds: int) -> None:
    """Print the seconds of each job by number of processes, medians over rounds."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0)
        for number in range(FILES):
            pixels = noise.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.png")
        jobs = {"PNG files": Splits(Pictures(folder)), "in memory": Splits(in_memory(folder))}
        for job, splits in jobs.items():
            found: dict[int | str, list[float]] = {0: [], 2: [], "auto": []}
            for _ in range(rounds):
                for workers, times in found.items():
                    spent, said = seconds(splits, workers)
                    times.append(spent)
                    if workers == "auto":
                        print(f"{job}, auto: {said}", flush=True)
            alone = statistics.median(found[0])
            for workers, times in found.items():
                median = statistics.median(times)
                print(f"{job:<10} workers {workers!s:<5} {median:6.1f} s   {median / alone:.2f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
