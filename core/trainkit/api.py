"""What the command line can do, as functions: run, resume, preview, find_learning_rate, evaluate, predict and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .ablation import ablation
from .ablation.ablation import AblationResult
from .ablation.plan import SEEDS, AblationPlan, plan_ablation
from .ablation.plan import Asked as AblationAsked
from .blame import told
from .carrying import resume, start
from .compose import compose
from .config import layer_of
from .contracts import Inspection
from .costs.cost import Cost, measure
from .costs.prices import price_table
from .documents import plan_document
from .draft import Draft, make_draft
from .errors import ExitCode, UsageError
from .execution import RunResult
from .exporting import Exported, exported
from .inspection import inspect, inspection_document
from .kinds import KINDS
from .lrfind.finder import Search, find_in
from .lrfind.foundrate import check_folder, record_of, save_found
from .lrfind.rangetest import Axis, RangeTest, Rule
from .measuring import trained_results
from .merging import Merging, merging
from .prediction import Asked, Prediction, Predictions, predictions
from .registry import Registry
from .request import Listeners, Request, request_of
from .showing import Sheet, contact_sheet
from .signals import EXIT_CODES

__all__ = [
    "EXIT_CODES",
    "AblationAsked",
    "AblationPlan",
    "AblationResult",
    "Asked",
    "ExitCode",
    "Exported",
    "Merging",
    "Prediction",
    "Predictions",
    "RangeTest",
    "Request",
    "RunResult",
    "Search",
    "Sheet",
    "ablate",
    "check_folder",
    "contact_sheet",
    "cost_of",
    "evaluate",
    "export",
    "exported",
    "find_in",
    "find_learning_rate",
    "inspect",
    "inspection_document",
    "merge",
    "merging",
    "plan_ablation",
    "plan_document",
    "predict",
    "predictions",
    "preview",
    "record_of",
    "resume",
    "run",
    "save_found",
    "show",
    "start",
    "trained_results",
    "validate",
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
    folds: int | None = None,
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
        folds: cross-validate by so many folds, then train on all of their samples: see `trainkit run --folds`.
        settings: everything else by dotted key, as {"loop.epochs": 5, "optimizer.lr": 3e-4, "out": "runs/first"}.
        registry: where names become components; all that is installed if not given.
        listeners: (label, object) pairs that hear the run's events.

    Raises:
        TrainkitError: with what is wrong, where, why, and what to do.
    """
    named = dict(
        zip(KINDS, (strategy, task, loss, augmenter, optimizer, scheduler, metric, adapter, callback), strict=True)
    )
    asked = {**(settings or {}), **({"folds": folds} if folds is not None else {})}
    return start(request_of(config, named, data, asked, registry, listeners))


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


def find_learning_rate(
    config: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    data: str | Path | None = None,
    low: float = 1e-8,
    high: float = 1.0,
    steps: int = 100,
    rule: Rule = "steepest",
    axis: Axis = "log",
    **components: Any,
) -> RangeTest:
    """Return the learning-rate range test of a run: its `suggestion`, or the `reason` why there is none.

    Nothing is trained and nothing written; live objects are left as they were, to the bit. A signal ends the test at
    its next step.

    Args:
        config: a TOML file; for what is not named here see `run`.
        settings: everything else by dotted key, as {"loop.accumulate": 4}.
        registry: where names become components.
        data: folder or file of the data.
        low: the smallest rate.
        high: the largest rate.
        steps: how many rates, each for one optimizer step; 13 at least.
        rule: 'steepest' (where the loss falls fastest), 'valley' (the middle of its longest fall), or 'minimum' (a
            tenth of the rate at which it is lowest).
        axis: 'log' or 'linear': by which the steepest fall is meant.
        components: a name or a live object for each kind, as optimizer="lion".

    Raises:
        TrainkitError: UsageError where a rate has no meaning, as for an optimizer that sets its own.
    """
    return find_in(
        preview(config, settings=settings, registry=registry, data=data, **components),
        Search(low, high, steps, rule, axis),
    )


def evaluate(
    path: str | Path,
    split: str | None = None,
    request: Request | None = None,
    *,
    data: str | Path | None = None,
    checkpoint: str = "best",
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> dict[str, float]:
    """Return the losses and metrics of a run's checkpoint on a split of its data, or on all of other data.

    Args:
        path: the run directory.
        split: train, val or test, which it is if not given.
        request: live objects and listeners; of its settings, only what may change after training.
        data: other data, all of which is measured, with tags as 'all/loss'; nothing is learned from it.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.
        settings: options of the task that may change after training, as {"task.guidance": 3.0}.
        device: where to compute; where the run did if not given.
    """
    request = request or Request()
    layers = [*request.layers, layer_of(settings or {}, "settings argument")]
    other = None if data is None else Path(data).expanduser()
    return trained_results(Path(path), split, other, checkpoint, layers, device, request)["model"]


def predict(
    path: str | Path,
    inputs: Sequence[str | Path],
    request: Request | None = None,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    checkpoint: str = "best",
    device: str | None = None,
    page: bool = False,
) -> Predictions:
    """Answer new inputs with a run's model and write the answers to files; the data of the run is not needed.

    Args:
        path: the run directory.
        inputs: files or folders that the task can read; where it answers prompts, a text that is no file is one.
        request: live objects and listeners; of its settings, only what may change after training.
        out: a folder that is new or empty; a new one under RUN/predictions if not given.
        batch_size: how many inputs are answered at once; that of evaluations if not given.
        seed: decides about whatever is drawn.
        settings: options of the task that may change after training, as {"task.guidance": 3.0}.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.
        device: where to compute; where the run did if not given.
        page: write index.html, with inputs and answers side by side.

    Raises:
        TrainkitError: DataError for inputs that cannot be read, UsageError for a task that does not answer.
    """
    request = request or Request()
    layers = [*request.layers, layer_of(settings or {}, "settings argument")]
    how = Asked(batch_size, seed, checkpoint, device, page)
    return predictions(Path(path), inputs, out, layers, how, request)


def merge(
    path: str | Path, to: str | Path | None = None, request: Request | None = None, *, checkpoint: str = "best"
) -> Merging:
    """Work what a run's adapter learned into the weights, and compare on batches of the run's data.

    Args:
        path: the run directory.
        to: a folder that is new or empty, for the merged model; None to compare only.
        request: live objects and registry.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.

    Raises:
        TrainkitError: UsageError where there is nothing to merge, RunFailed where the merged model answers otherwise.
    """
    return merging(Path(path), None if to is None else Path(to).expanduser(), checkpoint, request or Request())


def export(path: str | Path, to: str | Path, request: Request | None = None, *, checkpoint: str = "best") -> Exported:
    """Write the model of a run for other programs, what its adapter learned worked into the weights.

    Args:
        path: the run directory.
        to: a folder that is new or empty.
        request: live objects and registry.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.

    Raises:
        TrainkitError: UsageError for a folder that holds something.
    """
    return exported(Path(path), Path(to).expanduser(), checkpoint, request or Request())


def validate(
    data: str | Path,
    *,
    task: Any = None,
    settings: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> Inspection:
    """Return what a task finds out about data: how much there is, what describes it, what is wrong with it.

    Args:
        data: folder or file of the data.
        task: a name or a live object; the default task if not given.
        settings: options of the task by dotted key, as {"task.max_length": 100}.
        registry: where names become components; all that is installed if not given.

    Raises:
        TrainkitError: DataError if there is nothing to look at.
    """
    return inspect(request_of(None, {"task": task}, data, settings, registry, ()))


def show(
    data: str | Path | None = None,
    *,
    config: str | Path | None = None,
    task: Any = None,
    augmenter: Any = None,
    strategy: Any = None,
    settings: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    samples: int = 6,
    variants: int = 0,
) -> Sheet:
    """Return a contact sheet of training samples, with variants by the augmenters that a run would take.

    Args:
        data: folder or file of the data; the task's embedded sample if not given.
        config: a TOML file.
        task: a name or a live object.
        augmenter: a name or a live object, or a list of them; those of the task and the strategy if not given.
        strategy: a name or a live object.
        settings: everything else by dotted key, as {"seed": 1}.
        registry: where names become components; all that is installed if not given.
        samples: how many samples, a row for each.
        variants: how many variants beside each sample; 0 for none.
    """
    named = {"task": task, "augmenter": augmenter, "strategy": strategy}
    return contact_sheet(request_of(config, named, data, settings, registry, ()), samples, variants)


def ablate(
    path: str | Path,
    *,
    only: Sequence[str] = (),
    seeds: int = SEEDS,
    max_steps: int | None = None,
    out: str | Path | None = None,
    request: Request | None = None,
) -> AblationResult:
    """Carry out a run again as it was, and without one of its parts at a time: what each contributes, with intervals.

    What is done in `out` is not done again, so the same call goes on with an ablation that was stopped.

    Args:
        path: the run directory.
        only: the parts to leave out, by kind or as KIND/NAME; all of them if not given.
        seeds: how many seeds, from that of the run on; three or more for an interval that says something.
        max_steps: every run ends at this optimizer step at the latest.
        out: where the runs and the report are; beside the run if not given, as RUN-ablation.
        request: live objects, registry and listeners.

    Raises:
        TrainkitError: UsageError where there is nothing to leave out.
    """
    request = request or Request()
    plan = plan_ablation(Path(path), AblationAsked(only, seeds, max_steps), request)
    return ablation.start(plan, request, None if out is None else Path(out))


def cost_of(draft: Draft, prices: str | Path | None = None) -> Cost:
    """Return the measured cost of a draft: a few real steps on this machine, thrown away.

    Args:
        draft: as `preview` returns it.
        prices: a price table that goes before the user's own and the one that comes along.

    Raises:
        TrainkitError: UsageError for a price table that is none.
    """
    table = price_table(None if prices is None else Path(prices).expanduser())
    built = compose(draft)
    with told(built):
        return measure(built, table)
