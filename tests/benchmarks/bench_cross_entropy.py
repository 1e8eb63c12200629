"""What the loss `cross-entropy` costs beside PyTorch's own, forward and backward: processor time and memory.

Both take logits in bf16 or float32 and give the gradient in the same precision; PyTorch's is given logits in float32,
as trainers do. One thread; rounds in turn, medians of their ratios; memory is the peak above what is there before, in
a process of its own.

    python tests/benchmarks/bench_cross_entropy.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.nn import functional
from trainkit_loss_cross_entropy.cross_entropy import cross_entropy

# Rows (batch times length) and classes: layouts, our tokenizer's default, T5's own.
SHAPES = ((512, 40), (2048, 4096), (2048, 32128))
ROUNDS = 9


def ours(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the sum of the loss that is measured."""
    return cross_entropy(logits, labels, smoothing)[0].sum()


def theirs(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the same by PyTorch's function."""
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum")


CONTESTANTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"trainkit": ours, "torch": theirs}


def data(rows: int, classes: int, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return logits that learn, and labels of which a seventh is ignored."""
    torch.manual_seed(0)
    labels = torch.randint(0, classes, (rows,))
    labels[::7] = -100
    return torch.randn(rows, classes, dtype=precision).requires_grad_(), labels


def once(name: str, logits: Tensor, labels: Tensor, smoothing: float) -> float:
    """Return the seconds of a pass forward and backward."""
    logits.grad = None
    started = time.process_time()
    CONTESTANTS[name](logits, labels, smoothing).backward()
    return time.process_time() - started


def resident(field: str) -> float:
    """Return a field of this process's memory in MiB: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(name: str, rows: int, classes: int, precision: str, smoothing: float) -> None:
    """Print the peak of memory of one pass over what is there before, in MiB."""
    small = data(64, 64, getattr(torch, precision))
    once(name, *small, smoothing)
    logits, labels = data(rows, classes, getattr(torch, precision))
    before = resident("VmRSS")
    once(name, logits, labels, smoothing)
    print(resident("VmHWM") - before)


def peak_of(*arguments: object) -> float:
    """Return what `peak` prints in a process of its own."""
    command = [sys.executable, __file__, "--peak", *map(str, arguments)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print a row for each shape, precision and smoothing."""
    torch.set_num_threads(1)
    print("rows x classes   logits    smoothing   trainkit      torch   ratio   MiB: trainkit   torch")
    for rows, classes in SHAPES:
        for precision in ("bfloat16", "float32"):
            for smoothing in (0.0, 0.1):
                some = data(rows, classes, getattr(torch, precision))
                times = [[once(name, *some, smoothing) for name in CONTESTANTS] for _ in range(ROUNDS)]
                mine, other = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
                ratio = statistics.median(a / b for a, b in times)
                memory = [peak_of(name, rows, classes, precision, smoothing) for name in CONTESTANTS]
                shape = f"{rows} x {classes}"
                print(
                    f"{shape:<16} {precision:<9} {smoothing:>9} {mine:>7.2f} ms {other:>7.2f} ms {ratio:>7.2f}"
                    f" {memory[0]:>15.0f} {memory[1]:>7.0f}"
                )


if __name__ == "__main__":
    if "--peak" in sys.argv:
        place = sys.argv.index("--peak") + 1
        name, rows, classes, precision, smoothing = sys.argv[place:]
        torch.set_num_threads(1)
        peak(name, int(rows), int(classes), precision, float(smoothing))
    else:
        main()
