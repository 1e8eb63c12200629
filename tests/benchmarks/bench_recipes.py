"""What the ten improvements of the recipe task are worth: validation perplexity at equal time on the processor.

A T5 built from a named size learns recipes with all improvements, with none, and with each alone, for the same seconds
of the process's time. `on` trains first, for its epochs; what it took is what all others of its seed may take, and
their schedules end there: a step's cost is measured before. All see the same data, tokenizer and batches, each
schedule has the rate that is best for it, and all are judged by the plain perplexity of the same validation split,
asked in the first format. Without a technique stands what `trainkit ablate` puts in its place: a constant rate, samples
as they are, plain cross-entropy.

Of the ten, three change no weight here and are not measured: the validation split and its figures, the metrics of
recipes, and LoRA, which is for weights that were learned before; these are random.

    python tests/benchmarks/bench_recipes.py recipes-10k.jsonl.gz --size mini --out table.json
    python tests/benchmarks/bench_recipes.py recipes-10k.jsonl.gz --size tiny --steps 350 --seeds 0 --arms off cosine
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import trainkit
from trainkit import hookimpl
from trainkit.evaluation import evaluate
from trainkit.live import Run

TECHNIQUES: dict[str, dict[str, Any]] = {
    "cosine": {"scheduler.use": "cosine", "scheduler.warmup": 0.1, "scheduler.floor": 0.01, "peak": True},
    "curriculum": {"curriculum": True},
    "augmentation": {"augmenter": ["recipe-text"]},
    "label-smoothing": {"loss.label_smoothing": 0.1},
    "quality-threshold": {"quality-threshold": True},
    "formats": {"formats": True},
    "gradient-noise": {"gradient-noise": True},
}
# How two of them were before they were changed.
BEFORE: dict[str, dict[str, Any]] = {
    "kept-smoothing": {"loss.label_smoothing": 0.1, "loss.until": None},
    "noise-by-tensor": {"gradient-noise": True, "callback.gradient-noise.scale": "relative"},
}
CALLBACKS = ("curriculum", "quality-threshold", "gradient-noise")
NONE = {
    "scheduler.use": "constant",
    "augmenter": ["no:recipe-text"],
    "loss.label_smoothing": 0.0,
    "metric": ["perplexity", "no:recipe-quality", "no:text-overlap"],
    "checkpoint.every_epochs": None,
    "evaluate.every_epochs": None,
    "evaluate.final": False,
    "threads": 1,
    "device": "cpu",
}
FIRST_FORMAT = ("Create a recipe: {text}",)
WARM, CALIBRATION = 4, 16


class Clock:
    """Take the time of training on the processor, end it after a budget, and measure the validation split at the end.

    Args:
        budget: most seconds.
        measures: whether the split is measured.
    """

    def __init__(self, budget: float = math.inf, measures: bool = True) -> None:
        self.budget, self.measures = budget, measures
        self.times: list[float] = []
        self.results: Mapping[str, float] = {}
        self.admitted: list[float] = []

    @hookimpl
    def on_run_start(self) -> None:
        """Begin to count."""
        self.times = [time.process_time()]

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Note a step, and end the run when its time is over."""
        self.times.append(time.process_time())
        if self.seconds >= self.budget:
            run.stop("its time is over")

    @hookimpl
    def on_log(self, row: Mapping[str, float]) -> None:
        """Note how many samples the threshold of quality admits."""
        self.admitted += [row[tag] for tag in ("quality-threshold/admitted",) if tag in row]

    @hookimpl
    def on_run_end(self, run: Run) -> None:
        """Measure the weights that are there at the end."""
        if self.measures:
            assert run.splits.val is not None
            self.results = evaluate(run, "val", run.splits.val)

    @property
    def seconds(self) -> float:
        """Return the seconds of training."""
        return self.times[-1] - self.times[0]

    @property
    def per_step(self) -> float:
        """Return the seconds of a step, the first ones left out."""
        return (self.times[-1] - self.times[WARM]) / (len(self.times) - 1 - WARM)


def settings_of(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of an arm: all techniques, none, all but one ('no-NAME'), or some ('NAME+NAME')."""
    if arm == "on" or arm.startswith("no-"):
        names = set(TECHNIQUES) - {arm.removeprefix("no-")}
    else:
        names = set(arm.split("+")) - {"off"}
    chosen: dict[str, Any] = {}
    for name in names:
        chosen |= {**TECHNIQUES, **BEFORE}[name]
    off = [f"no:{name}" for name in CALLBACKS if not chosen.pop(name, False)]
    rate = options.peak if chosen.pop("peak", False) else options.rate
    templates = {} if chosen.pop("formats", False) else {"task.templates": FIRST_FORMAT}
    return {
        **NONE,
        **chosen,
        **templates,
        "callback": ["no:sample-outputs", "no:tensorboard", *off],
        "precision": options.precision,
        "optimizer.use": options.optimizer,
        "optimizer.lr": rate,
        "task.size": options.size,
        "task.vocab_size": options.vocab_size,
        "task.max_target": options.max_target,
        "loop.batch_size": options.batch_size,
        "loop.epochs": options.epochs,
        "seed": seed,
    }


def trained(settings: Mapping[str, Any], data: Path, clock: Clock) -> None:
    """Train once, and leave nothing but what the clock saw."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trainkit.run(
            task="recipes",
            data=data,
            strategy="baseline",
            settings={**settings, "out": str(Path(folder) / "run")},
            listeners=[("clock", clock)],
        )


def measured(arm: str, seed: int, budget: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return what an arm comes to; it may take so many seconds, or all that its epochs take where it is infinite."""
    settings = settings_of(arm, seed, options)
    has_curriculum = not any(name == "no:curriculum" for name in settings["callback"])
    if options.steps:
        settings |= {"loop.max_steps": options.steps, "loop.epochs": options.epochs if has_curriculum else 10_000}
    elif math.isfinite(budget) and not has_curriculum:
        # A curriculum's stages end by shares of its epochs, which are those of `on`; all others end by steps.
        probe = Clock(measures=False)
        trained({**settings, "loop.max_steps": CALIBRATION}, options.data, probe)
        steps = max(1, round(budget / probe.per_step))
        settings |= {"loop.max_steps": steps, "loop.epochs": 10_000}
    clock = Clock(budget)
    trained(settings, options.data, clock)
    return {
        "arm": arm,
        "seed": seed,
        "perplexity": clock.results["val/perplexity"],
        "loss": math.log(clock.results["val/perplexity"]),
        "seconds": clock.seconds,
        "steps": len(clock.times) - 1,
        "admitted": sorted(set(clock.admitted)),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows by arm: mean and deviation over seeds, and the mean ratio to the arm `off` of the same seed."""
    off = {row["seed"]: row["perplexity"] for row in rows if row["arm"] == "off"}
    lines = [
        "| arm | seeds | perplexity | by off | steps | s on the processor |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        values = [row["perplexity"] for row in mine]
        ratios = [row["perplexity"] / off[row["seed"]] for row in mine if row["seed"] in off]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        by_off = f"{statistics.mean(ratios) - 1:+.1%}" if ratios else ""
        steps, seconds = (statistics.mean(row[name] for row in mine) for name in ("steps", "seconds"))
        lines.append(
            f"| {arm} | {len(mine)} | {statistics.mean(values):.2f}{spread} | {by_off} | {steps:.0f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print a line for each run, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--max-target", type=int, default=128)
    parser.add_argument("--optimizer", default="adafactor")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--rate", type=float, default=0.02, help="where it stays constant")
    parser.add_argument("--peak", type=float, default=0.05, help="where it falls as a cosine")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each arm, in place of equal time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["on", "off", *TECHNIQUES])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    for seed in options.seeds:
        for arm in options.arms if options.steps else dict.fromkeys(["on", *options.arms]):
            if any(row["arm"] == arm and row["seed"] == seed for row in rows):
                continue
            ons = (row["seconds"] for row in rows if row["arm"] == "on" and row["seed"] == seed)
            budget = math.inf if options.steps else next(ons, math.inf)
            rows.append(measured(arm, seed, budget, options))
            print(json.dumps(rows[-1]), flush=True)
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
