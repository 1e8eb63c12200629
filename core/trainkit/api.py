"""What the command line can do, as functions: run, resume, preview, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .blame import told
from .checkpoint import Checkpoint, Checkpoints
from .compose import compose
from .config import DEFAULTS, FALLBACK_STRATEGY, layer_of
from .cost import Cost, measure
from .documents import plan_document, read_documents
from .draft import Draft, make_draft, restore_draft
from .errors import CheckpointError, UsageError
from .evaluation import evaluate as evaluate_split
from .execution import RunResult, resume, start
from .kinds import KINDS
from .registry import Registry
from .request import Listeners, Reporter, Request, request_of
from .rundir import RunDirectory
from .snapshot import restore_weights, saved_state

__all__ = [
    "Request",
    "RunResult",
    "cost_of",
    "evaluate",
    "plan_document",
    "preview",
    "resume",
    "run",
    "start",
]


def run(
    config: str | Path | None = None,
    *,
    task: Any = None,
    data: str | Path | None = None,
    strategy: Any = None,
    loss: Any = None,
    augmenter: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    metric: Any = None,
    adapter: Any = None,
    callback: Any = None,
    settings: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    listeners: Listeners = (),
) -> RunResult:
    """Train a model from named parts, or from live objects in place of names.

    Args:
        config: a TOML file; all else wins over it.
        task: a name or a live object, as all components; metric, augmenter and callback also take lists.
        data: folder or file of the data.
        strategy: how to train; 'auto' by the number of samples.
        loss: what is made small.
        augmenter: what varies samples.
        optimizer: a name, a class, or a factory that takes the parameters.
        scheduler: a name, a class, or a factory that takes the optimizer and the number of steps.
        metric: what is measured.
        adapter: which weights learn.
        callback: what else happens.
        settings: everything else by dotted key, as {"loop.epochs": 5, "optimizer.lr": 3e-4, "out": "runs/first"}.
        registry: where names become components; all that is installed if not given.
        listeners: (label, object) pairs that hear the run's events.

    Raises:
        TrainkitError: with what is wrong, where, why, and what to do.
    """
    named = dict(
        zip(KINDS, (strategy, task, loss, augmenter, optimizer, scheduler, metric, adapter, callback), strict=True)
    )
    return start(request_of(config, named, data, settings, registry, listeners))


def preview(
    config: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    data: str | Path | None = None,
    **components: Any,
) -> Draft:
    """Return what a run would do, without doing it: see `run` for the arguments."""
    if unknown := set(components) - set(KINDS):
        raise UsageError(f"unknown arguments: {', '.join(sorted(unknown))}", why=f"kinds: {', '.join(KINDS)}")
    request = request_of(config, components, data, settings, registry, ())
    return make_draft(request.layers, request.registry, request.live)


# What only training needs gives way to the defaults: it need not be there to look at a model. Callbacks stay: one may
# hear an evaluation and change what is evaluated.
NOT_EVALUATED = {
    "strategy": FALLBACK_STRATEGY,
    "optimizer": DEFAULTS["optimizer.use"],
    "scheduler": DEFAULTS["scheduler.use"],
    "augmenter": [],
}


def evaluate(
    path: str | Path, split: str = "test", request: Request | None = None, *, checkpoint: str = "best"
) -> dict[str, float]:
    """Return the losses and metrics of a run's checkpoint on a split of its data.

    Args:
        path: the run directory.
        split: train, val or test.
        request: live objects and listeners; its settings must be empty.
        checkpoint: 'best', or 'last' for the newest one.
    """
    request = request or Request()
    directory = RunDirectory.read(Path(path))
    config, plan = read_documents(directory)
    config.add(layer_of(NOT_EVALUATED, "evaluation"))
    draft = restore_draft(config, plan, request.registry, request.live)
    datasets = dict(draft.splits.items())
    if split not in datasets:
        raise UsageError(f"there is no split '{split}'", why=f"the data has {', '.join(datasets)}")
    built = compose(draft, None, request.listeners)
    found = _found(directory, checkpoint, request.report)
    state = saved_state(found)
    built.moment.load_state_dict(state["moment"])
    restore_weights(built, found, state)
    with told(built):
        return evaluate_split(built, split, datasets[split])


def _found(directory: RunDirectory, wanted: str, report: Reporter) -> Checkpoint:
    """Return a run's best checkpoint, or the newest one if that is wanted or none is the best; change nothing."""
    checkpoints = Checkpoints(directory.checkpoints, read_only=True)
    try:
        found = checkpoints.best() if wanted == "best" else None
    except CheckpointError as error:
        do = f"take the newest whole one: trainkit evaluate {directory.path} --checkpoint last"
        raise CheckpointError(error.what, where=error.where, why=error.why, do=do) from error
    found = found or checkpoints.newest_valid(report)
    if found is None:
        raise CheckpointError(
            "the run has no checkpoint that can be used",
            where=str(directory.checkpoints),
            do=f"trainkit run --resume {directory.path}",
        )
    return found


def cost_of(draft: Draft) -> Cost:
    """Return the measured cost of a draft: a few real steps on this machine, thrown away."""
    built = compose(draft)
    with told(built):
        return measure(built)
