"""What falls due between steps: rows of the log, evaluations, checkpoints, and the report of a divergence."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .best import Ranked, ranked
from .costs.ahead import ahead_of
from .costs.probe import estimate
from .costs.whole import steps_left
from .errors import Diverged
from .evaluation import evaluate, evaluated_weights
from .ranks.agreement import agree
from .ranks.sharding import whole
from .ranks.sharing import share_buffers
from .record import learning_rates
from .snapshot import take_snapshot

if TYPE_CHECKING:
    from .live import Run

# Fewer steps are over before a forecast is worth the time it takes.
WORTH_TRYING = 64


def at_step(run: Run) -> None:
    """Do what is due after an optimizer step. Called again after a resume, it does only what was not done."""
    agree(run)
    step, settings = run.moment.step, run.settings
    run.forecast.stepped(step, run.moment.stage)
    if settings.loop.log_every_steps and step % settings.loop.log_every_steps == 0:
        flush_log(run)
    improved = False
    if settings.evaluate.every_steps and step and step % settings.evaluate.every_steps == 0:
        improved = evaluate_now(run)
    due = settings.checkpoint.every_steps and step and step % settings.checkpoint.every_steps == 0
    if due or improved or run.signal is not None:
        save(run)
    report_checkpoints(run)


def at_epoch_end(run: Run, *, last: bool) -> None:
    """Close an epoch: evaluate, announce, move on, save."""
    moment, settings = run.moment, run.settings
    improved = False
    if settings.loop.log_every_epochs and (moment.epoch + 1) % settings.loop.log_every_epochs == 0:
        flush_log(run)
    every = settings.evaluate.every_epochs
    if last or (every and (moment.epoch + 1) % every == 0):
        improved = evaluate_now(run)
    for hear in run.events.on_epoch_end:
        hear(run)
    agree(run)
    moment.epoch += 1
    moment.windows = 0
    moment.epoch_started = False
    every = settings.checkpoint.every_epochs
    if last or improved or (every and moment.epoch % every == 0) or run.signal is not None:
        save(run)
    report_checkpoints(run)


def flush_log(run: Run) -> None:
    """Write the row of everything gathered since the last one; nothing if there is nothing."""
    taken = run.gathered.take(run.world)
    if taken is None:
        return
    row = taken | learning_rates(run.optimizer.param_groups)
    if not math.isfinite(row.get("train/grad_norm", 0.0)):
        raise Diverged(**divergence_report(run, [], row["train/grad_norm"]))
    write_row(run, run.world.firsts(row | timing(run)))


def timing(run: Run) -> dict[str, float]:
    """Return the tags of time: seconds so far, seconds left, samples per second."""
    forecast, left = run.forecast, ahead_of(run)
    # Ranks do the same things at the same time: what depends on a clock, as whether to try something out, is not one.
    may_try = run.world.is_alone and not forecast.is_estimated
    if forecast.is_founded and may_try and (steps := steps_left(run, left)) >= WORTH_TRYING:
        estimate(run, left, steps)
    row = {"time/elapsed": forecast.elapsed()}
    if (remaining := forecast.remaining(left)) is not None:
        forecast.keep_first(run.moment.step, remaining, left)
        row["time/eta"] = remaining
    if forecast.per_step and run.moment.step:
        row["time/samples_per_second"] = run.moment.samples / run.moment.step / forecast.per_step
    if (share := run.workers.loading_share()) is not None:
        row["time/loading"] = share
    return row


def write_row(run: Run, row: dict[str, float]) -> None:
    """Write a row to metrics.jsonl and announce it."""
    if run.metrics_file is not None:
        run.metrics_file.append({"step": run.moment.step, "epoch": run.moment.epoch, **row})
    for hear in run.events.on_log:
        hear(run, row)


def evaluate_now(run: Run) -> bool:
    """Evaluate the validation split unless this step's is done; return whether its checkpoint is to be kept."""
    if run.splits.val is None or run.moment.evaluated_step == run.moment.step:
        return False
    flush_log(run)
    started, counted = time.perf_counter(), run.forecast.evaluating
    results = evaluate(run, "val", run.splits.val)
    run.moment.evaluated_step = run.moment.step
    write_row(run, results | {"time/evaluation": time.perf_counter() - started})
    # What listeners do with an evaluation, as pictures of answers, comes with each one and belongs to no step.
    uncounted = time.perf_counter() - started - (run.forecast.evaluating - counted)
    run.forecast.evaluated(uncounted, is_new=False)
    agree(run)
    return note_best(run, results[run.monitor])


def note_best(run: Run, value: float) -> bool:
    """Note a value of the monitored tag; return whether it is among the `checkpoint.keep_best` best so far."""
    keep = run.settings.checkpoint.keep_best
    run.best.ranking = ranked(run.best.ranking, Ranked(run.moment.step, value), keep, run.monitor_mode)
    return run.moment.step in run.best.steps


def save(run: Run) -> None:
    """Write a checkpoint of this moment, unless this step has one.

    An epoch's end changes no weight: resumed from the checkpoint of its last step, the run does what is left of the
    epoch, its evaluation included, again, and comes to the same.
    """
    moment = run.moment
    if run.checkpoints is None and run.world.is_alone:
        return
    if moment.saved_step != moment.step:
        moment.saved_step = moment.step
        share_buffers(run)
        with evaluated_weights(run):
            # All ranks take part in it, and rank 0 writes.
            snapshot = take_snapshot(run)
            if run.checkpoints is not None:
                run.checkpoints.save(snapshot, background=run.settings.checkpoint.background)
    if run.checkpoints is not None and moment.step in run.best.steps:
        run.checkpoints.mark_best(run.best.ranking)


def report_checkpoints(run: Run, *, wait: bool = False) -> None:
    """Announce the checkpoints that became durable; raise what the writer met."""
    if run.checkpoints is None:
        return
    for checkpoint in run.checkpoints.wait() if wait else run.checkpoints.finished():
        for hear in run.events.on_checkpoint:
            hear(run, Path(checkpoint.path))


def divergence_report(run: Run, window: list[dict[str, Any]], norm: float) -> dict[str, str]:
    """Return what a user needs to find the cause of a gradient that is not finite: samples, losses, the first layer."""
    parts = {name or "loss": float(pairs[-1][0]) for name, pairs in run.gathered.losses.by_name.items()}
    first = next(
        (n for n, p in run.learnable.items() if p.grad is not None and not bool(torch.isfinite(whole(p.grad)).all())),
        "none found",
    )
    ids = getattr(run.splits.train, "ids", None)
    numbers = [int(i) for batch in window for i in batch.get("sample_id", ())]
    if window:
        numbers = [number for own in run.world.everyones(numbers) for number in own]
    names = ", ".join(str(ids[i] if ids is not None else i) for i in numbers[:8])
    best = f"; the last checkpoint is of step {run.moment.saved_step}" if run.moment.saved_step >= 0 else ""
    return {
        "what": f"the gradient of step {run.moment.step + 1} is not finite (norm {norm}); "
        f"the update was not applied{best}",
        "where": f"samples {names}; first parameter with such a gradient: {first}",
        "why": "losses of the last micro-batch, summed: "
        + ", ".join(f"{name} {value:g}" for name, value in parts.items()),
        "do": "lower optimizer.lr, take --precision fp32, or allow skipping by --set loop.nan_policy=skip",
    }
