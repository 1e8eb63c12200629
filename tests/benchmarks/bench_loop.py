"""What the loop costs: trainkit beside a hand-written PyTorch loop, in one process, in turn, on one thread.

Same model (an MLP step of about 0.25 ms), same data, fused AdamW, clipping, warm-up and cosine, a row every 50 steps.

    python tests/benchmarks/bench_loop.py [ROUNDS]
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from typing import Any

import torch
from baretask import BareTask
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainkit.compose import compose
from trainkit.config import layer_of
from trainkit.contracts import Splits, reading
from trainkit.data import TensorData
from trainkit.draft import make_draft
from trainkit.loop import train
from trainkit.registry import Registry

SAMPLES, BATCH, STEPS, WARMUP, LOG_EVERY, RATE = 12_800, 32, 800, 80, 50, 1e-3


def make_model() -> nn.Sequential:
    """Return the MLP of the step of about 0.25 ms."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def make_data() -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels."""
    torch.manual_seed(1)
    inputs = torch.randn(SAMPLES, 64)
    return inputs, inputs[:, :10].argmax(-1)


def schedule(step: int) -> float:
    """Return the factor of warm-up and cosine."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def by_hand(model: nn.Module, batches: Any) -> float:
    """Train by a hand-written loop; return seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    criterion = nn.CrossEntropyLoss()
    rows = []
    started = time.perf_counter()
    step = 0
    while step < STEPS:
        for inputs, labels in batches():
            loss = criterion(model(inputs), labels)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % LOG_EVERY == 0:
                rows.append({"loss": loss.item(), "norm": norm.item(), "lr": scheduler.get_last_lr()[0]})
            if step == STEPS:
                break
    return time.perf_counter() - started


def make_splits() -> Splits:
    """Return the data as trainkit takes it."""
    inputs, labels = make_data()
    return Splits(TensorData({"input": inputs, "labels": labels}), source="random tensors")


def by_trainkit(loss: Any) -> float:
    """Train by trainkit, on its own batches; return the seconds of the loop."""
    live = {"live:task": BareTask(make_splits, make_model, "input", "labels", "logits"), "live:loss": loss}
    settings = {
        "task": "live:task",
        "strategy": "baseline",
        "loss": loss if isinstance(loss, str) else "live:loss",
        "optimizer": "adamw",
        "optimizer.lr": RATE,
        "scheduler": "cosine",
        "scheduler.warmup": WARMUP,
        "loop.batch_size": BATCH,
        "loop.max_steps": STEPS,
        "loop.epochs": math.ceil(STEPS * BATCH / SAMPLES),
        "loop.log_every_steps": LOG_EVERY,
        "evaluate.every_epochs": None,
        "device": "cpu",
    }
    run = compose(make_draft([layer_of(settings, "benchmark")], Registry(), live))
    started = time.perf_counter()
    train(run)
    seconds = time.perf_counter() - started
    assert run.moment.step == STEPS
    return seconds


def main() -> None:
    """Print medians of the step in microseconds, and ratios to the hand-written loop round by round."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    inputs, labels = make_data()
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=BATCH, shuffle=True)

    def indexed() -> Any:
        for rows in torch.randperm(SAMPLES).split(BATCH):
            yield inputs[rows], labels[rows]

    contestants = {
        "by hand, DataLoader": lambda: by_hand(make_model(), lambda: loader),
        "by hand, tensors indexed": lambda: by_hand(make_model(), indexed),
        "trainkit, torch's cross-entropy": lambda: by_trainkit(reading(nn.CrossEntropyLoss, "logits", "labels")),
        "trainkit, loss cross-entropy": lambda: by_trainkit("cross-entropy"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
    first = next(iter(contestants))
    print(f"{rounds} rounds of {STEPS} steps, one thread, torch {torch.__version__}")
    print(f"{'contestant':<34}{'step, us':>10}{'over first, us':>16}{'ratio':>8}")
    for name, times in seconds.items():
        steps = [1e6 * t / STEPS for t in times[1:]]
        base = [1e6 * t / STEPS for t in seconds[first][1:]]
        over = statistics.median(a - b for a, b in zip(steps, base, strict=True))
        ratio = statistics.median(a / b for a, b in zip(steps, base, strict=True))
        print(f"{name:<34}{statistics.median(steps):>10.0f}{over:>+16.1f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
