"""The end of a run: the best weights on every split, beside the trivial baselines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .contracts import Summarises
from .evaluation import evaluate, evaluate_baseline, switch_weights
from .ranks.states import same_checkpoint
from .routine import write_row
from .snapshot import restore_weights, saved_state
from .weights import weights_file

if TYPE_CHECKING:
    from .live import Run

Results = dict[str, dict[str, float]]


def load_best(run: Run) -> int | None:
    """Put the best checkpoint's weights into the model; return its step, or None where there is none.

    Where weights are averaged the average is left in place: training is over.
    """
    switch_weights(run, training=False)
    best = same_checkpoint(run.world, run.checkpoints.best() if run.checkpoints is not None else None)
    if best is None:
        return None
    restore_weights(run, best, saved_state(best))
    return best.step


def final_results(run: Run) -> Results:
    """Return the final table: for the model and for each baseline the metrics of every split, by tag.

    Training samples are seen as they are, the first `evaluate.train_samples` of them.
    """
    results: Results = {"model": {}}
    for split, dataset in run.splits.items():
        limit = run.settings.evaluate.train_samples if split == "train" else None
        if limit != 0:
            results["model"] |= evaluate(run, split, dataset, limit)
    for name, predict in run.task.baselines().items() if run.world.is_first else ():
        for split, dataset in run.splits.items():
            if split != "train":
                rows = evaluate_baseline(run, split, dataset, predict)
                results.setdefault(name, {}).update(
                    {tag: value for tag, value in rows.items() if not math.isnan(value)}
                )
    write_row(run, {f"final/{tag}": value for tag, value in results["model"].items()})
    # Evaluations, those of listeners included, leave trained weights in place.
    switch_weights(run, training=False)
    return results


def summary(run: Run, results: Results, best_step: int | None) -> dict[str, Any]:
    """Return what a run came to, as JSON."""
    return {
        "strategy": run.plan.strategy,
        "steps": run.moment.step,
        "epochs": run.moment.epoch,
        "samples": run.moment.samples,
        "skipped_updates": run.moment.skipped_total,
        "stop_reason": run.stop_reason,
        "stages_ended_early": run.stage_reasons,
        "inactive_terms": run.inactive.shares(),
        "monitor": run.monitor,
        "best": run.best.value,
        "best_step": run.best.step if run.best.value is not None else best_step,
        "best_checkpoints": [entry._asdict() for entry in run.best.ranking],
        "weights_file": weights_file(run),
        "seconds": round(run.forecast.elapsed(), 3),
        "forecast": forecast_document(run),
        "loading": run.workers.document(),
        "summaries": {
            label: dict(component.summary())
            for label, component in run.components.items()
            if isinstance(component, Summarises)
        },
        "results": results,
    }


def forecast_document(run: Run) -> dict[str, Any] | None:
    """Return the first forecast of the time of a run beside the fact, as JSON; None where it was over before one.

    The error is that of the forecast as a share of the fact; where the run made other steps than planned, as after an
    early stop, the two cannot be compared.
    """
    first, seconds = run.forecast.first, run.forecast.elapsed()
    if first is None:
        return None
    error = round(first.seconds / seconds - 1, 4) if run.moment.step == first.steps else None
    return {
        "made_at_step": first.step,
        "steps": first.steps,
        "seconds": round(first.seconds, 3),
        "fact": round(seconds, 3),
        "error": error,
    }
