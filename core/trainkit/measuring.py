"""A trained run measured again: on a split of its own data, or on all of other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answering import apart
from .blame import told
from .compose import compose
from .conformity import asked
from .contracts import Batch, Dataset, Sample, Whole
from .documents import read_documents
from .draft import restore_draft
from .errors import DataError, UsageError
from .evaluation import evaluate, evaluate_baseline
from .modelpath import model_path
from .request import Request
from .rundir import RunDirectory
from .snapshot import restore_weights, saved_state
from .tasks import lacking
from .trained import NOT_EVALUATED, changed_config, find_checkpoint, load_task_state, load_trained

if TYPE_CHECKING:
    from .config import Layer
    from .finish import Results
    from .live import Run

ALL = "all"


def trained_results(
    path: Path,
    split: str | None,
    data: Path | None,
    checkpoint: str,
    layers: Sequence[Layer],
    device: str | None,
    request: Request,
) -> Results:
    """Return for a run's checkpoint and for each trivial baseline the losses and metrics of a split, by tag.

    Args:
        path: the run directory.
        split: train, val or test, which is meant by None; the split of other data is 'all'.
        data: other data, all of which is measured, by what the run learned: nothing is learned from it.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.
        layers: options of the task that may change after training.
        device: where to compute; where the run did if not given.
        request: registry, live objects, listeners, reporter.
    """
    directory = RunDirectory.read(model_path(path))
    if data is None:
        name = split or "test"
        run, dataset = on_own_data(directory, name, checkpoint, layers, device, request)
    else:
        if split is not None:
            why = "all of the other data is measured, however a run would split it"
            raise UsageError(f"--split {split} beside --data", why=why, do="leave --split out")
        name = ALL
        run, dataset = _on_other_data(directory, data, checkpoint, layers, device, request)
    with told(run):
        results: Results = {"model": evaluate(run, name, dataset)}
        for baseline, predict in run.task.baselines().items():
            results[baseline] = evaluate_baseline(run, name, dataset, predict)
    return results


def on_own_data(
    directory: RunDirectory,
    split: str,
    checkpoint: str,
    layers: Sequence[Layer],
    device: str | None,
    request: Request,
) -> tuple[Run, Dataset]:
    """Return a run with the weights of a checkpoint, and a split of its data: see `trained_results`."""
    config, plan = read_documents(directory)
    config = changed_config(config, [NOT_EVALUATED], layers, device, request)
    draft = restore_draft(config, plan, request.registry, request.live)
    datasets = dict(draft.splits.items())
    if split not in datasets:
        raise UsageError(f"there is no split '{split}'", why=f"the data has {', '.join(datasets)}")
    run = compose(draft, None, request.listeners)
    found = find_checkpoint(directory, checkpoint, request.report)
    state = saved_state(found)
    run.moment.load_state_dict(state["moment"])
    restore_weights(run, found, state)
    return run, datasets[split]


def _on_other_data(
    directory: RunDirectory,
    data: Path,
    checkpoint: str,
    layers: Sequence[Layer],
    device: str | None,
    request: Request,
) -> tuple[Run, Dataset]:
    if not data.exists():
        raise DataError("there is no such data", where=str(data), do="check the path")
    trained = load_trained(directory, None, layers, checkpoint, device, request, [NOT_EVALUATED])
    with asked(f"task {trained.name}", "read the data"):
        dataset = _whole(trained.task, data, trained.run.settings.seed)
    # Reading may change what the task holds of the data: what it learned in training stands.
    load_task_state(trained.task, trained.checkpoint)
    if len(dataset) == 0:
        raise DataError("there is nothing to measure", where=str(data), do="name data that the task can read")
    for warning in getattr(dataset, "warnings", ()):
        request.report(f"warning: {warning}")
    return trained.run, dataset


def _whole(task: Any, data: Path, seed: int) -> Dataset:
    """Return all of some data as one dataset: as the task reads it whole, else its splits one after the other."""
    if not lacking(task, Whole):
        whole: Dataset = task.whole(data)
        return whole
    splits = task.read(data, seed)
    return Joined([dataset for _, dataset in splits.items()], splits.warnings)


class Joined:
    """Be several datasets one after the other.

    Args:
        datasets: of one task.
        warnings: what a user should know about them.
    """

    def __init__(self, datasets: Sequence[Dataset], warnings: Sequence[str] = ()) -> None:
        self.datasets, self.warnings = datasets, warnings

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitems__(self, indices: list[int]) -> Sequence[Sample] | Batch:
        parts: list[tuple[Dataset, list[int]]] = []
        for index in indices:
            dataset, place = self._place(index)
            if parts and parts[-1][0] is dataset:
                parts[-1][1].append(place)
            else:
                parts.append((dataset, [place]))
        found = [(dataset.__getitems__(places), len(places)) for dataset, places in parts]
        if len(found) == 1:
            return found[0][0]
        samples: list[Sample] = []
        for items, count in found:
            samples += apart(items, count) if isinstance(items, Mapping) else items
        return samples

    def _place(self, index: int) -> tuple[Dataset, int]:
        for dataset in self.datasets:
            if index < len(dataset):
                return dataset, index
            index -= len(dataset)
        raise IndexError(index)
