"""How each optimizer learns: loss against step on one small transformer, each at a rate tuned on another seed.

A byte-level language model (two layers of width 64, 64 bytes of context, 32 windows a step, 300 steps, no weight decay,
warm-up of 10 % then cosine; none for an optimizer that schedules itself) learns the English text of Python's own help
topics, through `trainkit` itself. The rate of a grid that is best with seed 0 is run with seeds 1, 2, 3; what is
plotted and printed is the loss on held-out text. Writes `loss.png` into each plugin's folder, and prints a table.

    python tests/benchmarks/optimizer_curves.py [NAME ...]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pydoc_data.topics import topics

import torch
from baretask import BareTask
from torch import Tensor, nn
from trainkit import hookimpl
from trainkit.compose import compose
from trainkit.config import layer_of
from trainkit.contracts import Splits
from trainkit.data import TensorData
from trainkit.draft import make_draft
from trainkit.loop import train
from trainkit.registry import Registry
from trainkit.reporting.contactsheet import png
from trainkit.reporting.plot import line_plot

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEADS, LAYERS, CONTEXT, BATCH, STEPS, EVERY, HELD_OUT = 64, 4, 2, 64, 32, 300, 30, 256
SEEDS = (1, 2, 3)

HALF_DECADES = {
    name: tuple(10 ** (i / 2) for i in span)
    for name, span in {
        "adamw": range(-5, 0),
        "sgd": range(-3, 2),
        "lion": range(-8, -3),
        "lamb": range(-5, 0),
        "adan": range(-4, 1),
        "sophia": range(-7, -2),
        "gpro": range(-3, 2),
        "schedule-free-adamw": range(-5, 0),
        "adafactor": range(-5, 0),
        "muon": range(-5, 0),
        "soap": range(-5, 0),
    }.items()
}
RATES: dict[str, tuple[float, ...]] = {**HALF_DECADES, "prodigy": (0.3, 1.0, 3.0)}
OPTIONS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}}


class Block(nn.Module):
    """One pre-norm transformer layer with causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, L, WIDTH]."""
        b, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(b, length, WIDTH))
        return x + self.mlp(self.norm2(x))


class ByteModel(nn.Module):
    """A language model of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Return the logits of each next byte [B, L, 256]."""
        places = torch.arange(input_ids.shape[1])
        return {"logits": self.head(self.norm(self.blocks(self.embedding(input_ids) + self.position(places))))}


def windows() -> tuple[TensorData, TensorData]:
    """Return training and held-out windows of the text: every eighth one is held out."""
    text = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
    ids = torch.tensor(list(text))
    rows = ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    held = torch.arange(len(rows)) % 8 == 0
    return tuple(  # type: ignore[return-value]
        TensorData({"input_ids": part[:, :-1].contiguous(), "labels": part[:, 1:].contiguous()})
        for part in (rows[~held], rows[held][:HELD_OUT])
    )


def make_splits() -> Splits:
    """Return the windows as trainkit takes them."""
    train_rows, held = windows()
    return Splits(train_rows, held, source="Python's help topics")


class Curve:
    """Listen to a run: the held-out loss by step."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    @hookimpl
    def on_log(self, run: Any, row: Mapping[str, float]) -> None:
        """Keep the loss of an evaluation."""
        if "val/loss" in row:
            self.points.append((float(run.moment.step), row["val/loss"]))


def learn(name: str, rate: float, seed: int) -> list[tuple[float, float]]:
    """Return (step, held-out loss) of one training; NaN at the end where it diverged."""
    registry = Registry()
    scheduled = getattr(registry.load("optimizer", name).target, "takes_scheduler", True)
    options = {"lr": rate, "weight_decay": 0.0, **OPTIONS.get(name, {})}
    settings = {
        "task": "live:task",
        "strategy": "baseline",
        "optimizer": name,
        **{f"optimizer.{key}": value for key, value in options.items()},
        "scheduler": "cosine" if scheduled else "constant",
        **({"scheduler.warmup": 0.1} if scheduled else {}),
        "loop.batch_size": BATCH,
        "loop.max_steps": STEPS,
        "loop.epochs": 10,
        "loop.nan_policy": "skip",
        "evaluate.every_epochs": None,
        "evaluate.every_steps": EVERY,
        "device": "cpu",
        "seed": seed,
    }
    run = compose(
        make_draft(
            [layer_of(settings, "benchmark")],
            registry,
            {"live:task": BareTask(make_splits, ByteModel, "input_ids", "labels", "logits")},
        ),
        None,
        [("c", curve := Curve())],
    )
    train(run)
    return curve.points


def tuned(name: str) -> tuple[float, list[tuple[float, float]], float, float, float]:
    """Return the best rate, the other seeds' mean curve, mean and deviation of their last loss, seconds of a run."""
    ends = {rate: learn(name, rate, 0)[-1][1] for rate in RATES[name]}
    best = min(ends, key=lambda rate: ends[rate] if ends[rate] == ends[rate] else float("inf"))
    started = time.perf_counter()
    curves = [learn(name, best, seed) for seed in SEEDS]
    seconds = (time.perf_counter() - started) / len(SEEDS)
    mean = [(points[0][0], statistics.mean(y for _, y in points)) for points in zip(*curves, strict=True)]
    last = [points[-1][1] for points in curves]
    return best, mean, statistics.mean(last), statistics.stdev(last), seconds


def main(names: Sequence[str]) -> None:
    """Write the plots and print the table."""
    torch.set_num_threads(1)
    chosen = [name for name in RATES if name in names] if names else list(RATES)
    print(f"{STEPS} steps, seeds {SEEDS} at the best rate of seed 0, torch {torch.__version__}\n")
    print("| optimizer | rate | held-out loss, mean | deviation | s for a run |\n| --- | --- | --- | --- | --- |")
    reference = None
    for name in dict.fromkeys(["adamw", *chosen]):
        rate, curve, loss, deviation, seconds = tuned(name)
        at_edge = " (edge of the grid)" if rate in (min(RATES[name]), max(RATES[name])) and name != "prodigy" else ""
        print(f"| {name} | {rate:.1e}{at_edge} | {loss:.3f} | {deviation:.3f} | {seconds:.1f} |", flush=True)
        label = f"{name}, lr {rate:.1e}"
        if reference is None:
            reference = (label, curve)
        series = dict([reference, (label, curve)])
        picture = line_plot(series, "step", "held-out loss, nats per byte", title=f"{name}: a byte-level transformer")
        (ROOT / "plugins" / "optimizer" / name / "loss.png").write_bytes(png(picture))


if __name__ == "__main__":
    main(sys.argv[1:])
