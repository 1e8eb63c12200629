"""A trained run: its checkpoint is found, and its model loaded without the data that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint, Checkpoints
from .compose import compose
from .config import DEFAULTS, FALLBACK_STRATEGY, Config, Layer, layer_of, short_name
from .contracts import Batch, Dataset, Sample, Splits, Task
from .documents import read_documents
from .draft import read_splits, restore_draft
from .errors import CheckpointError, DataError, UsageError, printable
from .folds.fold import read_fold
from .live import Run
from .request import Reporter, Request
from .resumption import apply_adjustable
from .rundir import RunDirectory
from .settings import check_settings
from .snapshot import restore_weights, saved_state
from .starting import without_start
from .tasks import build_task, require

# What only training needs gives way to the defaults: it need not be there to look at a model. Callbacks stay: one may
# hear an evaluation and change what is evaluated.
NOT_EVALUATED = {
    "strategy": FALLBACK_STRATEGY,
    "optimizer": DEFAULTS["optimizer.use"],
    "scheduler": DEFAULTS["scheduler.use"],
    "augmenter": [],
}
NOT_ANSWERED = {"metric": [], "evaluate.monitor": "val/loss", "evaluate.mode": "auto", "precision": "auto"}


class Unread:
    """Stand for a split that is read only if somebody asks for a sample; a plan is counted from its length.

    Args:
        length: number of samples.
        read: reads the split, as for a metric that compares answers with training samples.
    """

    is_read = False

    def __init__(self, length: int, read: Callable[[], Dataset]) -> None:
        self.length, self.read = length, cache(read)

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, indices: list[int]) -> Sequence[Sample] | Batch:
        return self.read().__getitems__(indices)


class TrainedTask:
    """Be a task as a checkpoint left it: what it learned is there, its data is not read again.

    Args:
        task: the task, with its learned state.
        splits: what it answers with when it is asked to read.
    """

    def __init__(self, task: Task, splits: Splits) -> None:
        self.task, self.splits = task, splits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def read(self, data: Path | None, seed: int) -> Splits:
        """Return the splits of the run, unread."""
        del data, seed
        return self.splits

    def fit(self, train: Iterable[Sample]) -> None:
        """Learn nothing more."""
        del train


@dataclass(frozen=True)
class Trained:
    """Hold a trained model without its data.

    Args:
        run: a composed run with the weights of the checkpoint.
        task: the task of the run, with what it learned.
        name: the task's name.
        checkpoint: where the weights are from.
    """

    run: Run
    task: Any
    name: str
    checkpoint: Checkpoint


def changed_config(
    config: Config, without: Sequence[Mapping[str, Any]], layers: Sequence[Layer], device: str | None, request: Request
) -> Config:
    """Return a run's config for looking at its model.

    Args:
        config: the run's; it is changed.
        without: settings in place of those of what is not needed.
        layers: options of the task that may change after training.
        device: where to compute, if not where the run did.
        request: registry and live objects.

    An option that changes may be worth other figures: metrics that the task proposes on its account join the run's.
    """
    without_start(config)
    for settings in without:
        config.add(layer_of(settings, "evaluation"))
    if device is not None:
        config.add(layer_of({"device": device}, "--device"))
    if not any(layers) or any("metric" in settings for settings in without):
        apply_adjustable(config, layers, request.registry, request.live)
        return config
    before = _proposed_metrics(config, request)
    apply_adjustable(config, layers, request.registry, request.live)
    more = [metric for metric in _proposed_metrics(config, request) if metric not in before]
    if more:
        config.add(layer_of({"metric": [*config.listed("metric"), *more]}, f"task {config['task.use']}"))
    return config


def _proposed_metrics(config: Config, request: Request) -> Sequence[Any]:
    proposed = build_task(config, request.registry, request.live).defaults.get("metric", ())
    return proposed if isinstance(proposed, list | tuple) else [proposed]


def load_trained(
    directory: RunDirectory,
    power: type[Any] | None,
    layers: Sequence[Layer],
    checkpoint: str,
    device: str | None,
    request: Request,
    without: Sequence[Mapping[str, Any]] = (NOT_EVALUATED, NOT_ANSWERED),
) -> Trained:
    """Return the model of a checkpoint with its task; no data is read before somebody asks for a sample of it.

    Args:
        directory: the run's.
        power: what the task must be able to do, as trainkit.contracts.Answers; None for nothing special.
        layers: options of the task that may change after training.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.
        device: where to compute, if not where the run did.
        request: registry, live objects, listeners, reporter.
        without: settings in place of those of what is not needed.
    """
    config, plan = read_documents(directory)
    name = config["task.use"]
    config = changed_config(config, without, layers, device, request)
    task = build_task(config, request.registry, request.live)
    if power is not None:
        require(task, power, name)
    found = find_checkpoint(directory, checkpoint, request.report)
    load_task_state(task, found)
    # The name stands in messages; another one than before takes the options along, which the task has already.
    label = f"{name} of {directory.path}"
    config.add(layer_of({"task": label, "fold": None}, "evaluation"))
    live = {**request.live, label: TrainedTask(task, _unread_splits(directory, found, request))}
    draft = restore_draft(config, plan, request.registry, live)
    # What stood in for the task while it was asked to read has done its part.
    draft.task = task
    run = compose(draft, None, request.listeners)
    state = saved_state(found)
    run.moment.load_state_dict(state["moment"])
    restore_weights(run, found, state)
    return Trained(run, task, short_name(name), found)


def load_task_state(task: Task, checkpoint: Checkpoint) -> None:
    """Give a task what it had learned at a checkpoint; raise CheckpointError where it does not fit."""
    state = checkpoint.document("task.json")
    try:
        task.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            "what the task learned does not fit the task as it is now",
            where=str(checkpoint.path),
            why=printable(f"{type(error).__name__}: {error}"),
            do="install the version that the run was started with: components.json in the run directory names it",
        ) from error


def _unread_splits(directory: RunDirectory, checkpoint: Checkpoint, request: Request) -> Splits:
    data = directory.read_json("plan.json").get("data", {})
    read = cache(partial(_own_splits, directory, checkpoint, request))

    def unread(split: str) -> Unread:
        return Unread(max(1, int(samples.get(split, 1))), lambda: read()[split])

    samples = data.get("samples", {})
    val, test = (unread(split) if split in samples else None for split in ("val", "test"))
    return Splits(unread("train"), val, test, str(data.get("source", "")), str(checkpoint.facts.get("data", "")))


def _own_splits(directory: RunDirectory, checkpoint: Checkpoint, request: Request) -> dict[str, Dataset]:
    """Return the splits of a run's own data, seen by what its task had learned at a checkpoint."""
    config, _ = read_documents(directory)
    settings = check_settings(config)
    task = build_task(config, request.registry, request.live)
    splits = read_fold(read_splits(task, settings), settings.fold, task, settings.seed)
    if splits.fingerprint != checkpoint.facts.get("data"):
        why = "its fingerprint differs from the one in the checkpoint"
        raise DataError("the data is not what the run was trained on", where=splits.source, why=why)
    load_task_state(task, checkpoint)
    return dict(splits.items())


def find_checkpoint(directory: RunDirectory, wanted: str, report: Reporter) -> Checkpoint:
    """Return a checkpoint of a run; change nothing.

    Args:
        directory: the run's.
        wanted: 'best', which is the newest where none is the best, 'last' for the newest, or a name as checkpoint-120.
        report: hears of damaged ones.

    Raises:
        CheckpointError: there is none that can be used.
        UsageError: there is none of this name.
    """
    checkpoints = Checkpoints(directory.checkpoints, read_only=True)
    if wanted not in ("best", "last"):
        return _named_checkpoint(checkpoints, wanted)
    try:
        found = checkpoints.best() if wanted == "best" else None
    except CheckpointError as error:
        do = "take the newest whole one by --checkpoint last"
        raise CheckpointError(error.what, where=error.where, why=error.why, do=do) from error
    found = found or checkpoints.newest_valid(report)
    if found is None:
        raise CheckpointError(
            "the run has no checkpoint that can be used",
            where=str(directory.checkpoints),
            do=f"trainkit run --resume {directory.path}",
        )
    return found


def _named_checkpoint(checkpoints: Checkpoints, name: str) -> Checkpoint:
    names = {f"checkpoint-{step}": step for step in sorted(checkpoints.steps())}
    if name not in names:
        raise UsageError(
            f"there is no checkpoint '{name}'",
            where=str(checkpoints.folder),
            why=f"there are: {', '.join(names) or 'none'}",
            do="name one of them, or 'best' or 'last'",
        )
    return checkpoints.of(names[name])
