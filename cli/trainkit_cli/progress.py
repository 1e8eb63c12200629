"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from trainkit import hookimpl
from trainkit.costs.whole import left_of_whole, spent_on_whole

from .excerpts import Excerpts

if TYPE_CHECKING:
    from trainkit.live import Run

SECONDS_BETWEEN_LINES = 10.0


def make_progress(stream: TextIO) -> object:
    """Return the progress display that suits a stream."""
    return PlainProgress(stream) if is_plain(stream) else RichProgress()


def is_plain(stream: TextIO) -> bool:
    """Return whether a stream takes lines only, no drawing that moves."""
    return not stream.isatty() or "CI" in os.environ or os.environ.get("TERM") == "dumb"


def clock(seconds: float | None) -> str:
    """Return seconds as hours:minutes:seconds."""
    if seconds is None:
        return "-:--:--"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def facts(run: Run, row: Mapping[str, float]) -> dict[str, str]:
    """Return what a progress display says, by name."""
    found = {run.part_of.kind: part_name(run)} if run.part_of is not None else {}
    found |= {
        "step": f"{run.moment.step}/{run.total_steps}",
        # Between its end and the start of the next one, and after the last, an epoch is still the one that is told.
        "epoch": str(max(1, run.moment.epoch + run.moment.epoch_started)),
        "done": f"{100 * steps_done(run) / steps_in_all(run):.0f}%",
    }
    names = {
        "loss": "train/loss",
        "val": run.monitor,
        "lr": "train/learning_rate",
        "samples/s": "time/samples_per_second",
    }
    found |= {name: f"{row[tag]:.4g}" for name, tag in names.items() if tag in row}
    if run.best.value is not None:
        found["best"] = f"{run.best.value:.4g}@{run.best.step}"
    found["elapsed"] = clock(spent_on_whole(run))
    if "time/eta" in row:
        found["eta"] = clock(left_of_whole(run, row["time/eta"]))
    return found


def part_name(run: Run) -> str:
    """Return what a run is in what it is a part of, as 2/5 or final in a cross-validation."""
    return run.part_of.name.removeprefix(f"{run.part_of.kind} ") if run.part_of is not None else ""


def steps_done(run: Run) -> int:
    """Return the steps behind a run and what it is a part of; parts that ended early count as planned."""
    return run.moment.step + (run.part_of.steps_before if run.part_of is not None else 0)


def steps_in_all(run: Run) -> int:
    """Return the planned steps of a run, or of what it is a part of."""
    return run.part_of.total_steps if run.part_of is not None else run.total_steps


def opening(run: Run) -> str:
    """Return the line that a run begins with."""
    learning = sum(parameter.numel() for parameter in run.learnable.values())
    place = f" in {run.directory.path}" if run.directory is not None else ""
    if run.resumed:
        place += f", resumed at step {run.moment.step}"
    if run.part_of is not None and run.part_of.number:
        return f"{run.part_of.name}: {len(run.splits.train)} training samples, {run.total_steps} steps{place}"
    return (
        f"{run.config['task.use']}, {run.splits.source}: {len(run.splits.train)} training samples, "
        f"strategy {run.plan.strategy}, {learning:,} parameters learn, "
        f"{run.total_steps} steps on {run.engine.device}{place}"
    )


class PlainProgress:
    """Write one line at most every ten seconds, without control codes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.row: dict[str, float] = {}
        self.last = -SECONDS_BETWEEN_LINES
        self.excerpts = Excerpts(lambda line: print(line, file=stream, flush=True))

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Say what begins, and what the data wants to be known."""
        print(opening(run), file=self.stream, flush=True)
        self.row = {}
        for warning in news(run):
            print(f"warning: {warning}", file=self.stream, flush=True)

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Write a line if the last one is old enough."""
        self.row |= row
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            line = " ".join(f"{name}={value}" for name, value in facts(run, self.row).items())
            print(line, file=self.stream, flush=True)

    @hookimpl
    def on_texts(self, run: Run, texts: Mapping[str, str]) -> None:
        """Show how the model's texts begin."""
        self.excerpts.tell(run.moment.step, texts)

    @hookimpl
    def on_run_end(self, run: Run, status: str) -> None:
        """Say how the run ended."""
        print(closing(run, status), file=self.stream, flush=True)


class RichProgress:
    """Draw one bar over the whole run, with its end in sight."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=Console(stderr=True),
        )
        self.row: dict[str, float] = {}
        self.bar: Any = None
        self.excerpts = Excerpts(lambda line: self.progress.console.print(line, markup=False, highlight=False))

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Draw the bar."""
        self.progress.console.print(opening(run), markup=False, highlight=False)
        self.row = {}
        for warning in news(run):
            self.progress.console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
        self.progress.start()
        if self.bar is None:
            self.bar = self.progress.add_task("training", total=steps_in_all(run), facts="")
        self.progress.update(self.bar, total=steps_in_all(run), completed=steps_done(run), facts="")

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Move the bar."""
        self.row |= row
        shown = {k: v for k, v in facts(run, self.row).items() if k not in ("done", "elapsed")}
        self.progress.update(self.bar, completed=steps_done(run), facts=" ".join(f"{k} {v}" for k, v in shown.items()))

    @hookimpl
    def before_evaluation(self, split: str) -> None:
        """Say that the model is evaluated."""
        self.progress.update(self.bar, description=f"evaluating {split}")

    @hookimpl
    def after_evaluation(self) -> None:
        """Say that training goes on."""
        self.progress.update(self.bar, description="training")

    @hookimpl
    def on_texts(self, run: Run, texts: Mapping[str, str]) -> None:
        """Show how the model's texts begin, above the bar."""
        self.excerpts.tell(run.moment.step, texts)

    @hookimpl
    def on_run_end(self, run: Run, status: str) -> None:
        """Leave the bar as it stands."""
        self.progress.stop()
        self.progress.console.print(closing(run, status), markup=False, highlight=False)


def news(run: Run) -> Sequence[str]:
    """Return what the data wants to be known; what the first fold told is known to the others."""
    return () if run.part_of is not None and run.part_of.number else run.splits.warnings


def closing(run: Run, status: str) -> str:
    """Return the line that a run ends with."""
    reason = f": {run.stop_reason}" if run.stop_reason else ""
    line = f"{status} at step {run.moment.step}/{run.total_steps} after {clock(run.forecast.elapsed())}{reason}"
    if run.part_of is not None:
        line = f"{run.part_of.name}: {line}"
        line += f", best {run.monitor} {run.best.value:.4g}" if run.best.value is not None else ""
    if status in ("interrupted", "stopped") and run.directory is not None:
        whole = run.part_of
        command, directory = (whole.resume, whole.directory) if whole else ("trainkit run --resume", run.directory.path)
        line += f"\nresume: {command} {shlex.quote(str(directory))}"
    return line
