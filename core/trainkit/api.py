"""What the command line can do, as functions: run, resume, preview, evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blame import explained
from .checkpoint import Checkpoint, Checkpoints
from .compose import Run, compose
from .config import LIST_KINDS, Config, Layer, Value, environment_layer, layer_of, read_file, to_toml
from .cost import Cost, measure
from .draft import Draft, make_draft, restore_draft
from .errors import CheckpointError, ExitCode, TrainkitError, UsageError
from .evaluation import evaluate as evaluate_split
from .finish import Results, final_results, load_best, summary
from .hooks import KINDS
from .loop import enter_stage, train
from .plan import Plan
from .registry import Registry
from .report import environment, write_report
from .routine import report_checkpoints
from .rundir import MetricsFile, RunDirectory
from .signals import EXIT_CODES, heard
from .snapshot import restore, saved_moment

if TYPE_CHECKING:
    from torch import nn

Listeners = Iterable[tuple[str, object]]
Reporter = Callable[[str], None]


@dataclass(frozen=True)
class RunResult:
    """Hold how a run ended.

    Args:
        status: done, stopped, or interrupted.
        exit_code: what the command line exits with.
        directory: the run directory.
        summary: steps, best value, seconds and the final table, as JSON.
        model: the model, with its best weights if the run is done.
    """

    status: str
    exit_code: ExitCode
    directory: Path
    summary: dict[str, Any]
    model: nn.Module


@dataclass(frozen=True)
class Request:
    """Hold what a user asked for.

    Args:
        layers: settings, lowest layer first.
        live: objects that stand for names in the layers.
        registry: where names become components.
        listeners: (label, object) pairs that hear the run's events.
        report: hears one-line messages, as of a checkpoint set aside.
    """

    layers: Sequence[Layer] = ()
    live: Mapping[str, Any] = field(default_factory=dict)
    registry: Registry = field(default_factory=Registry)
    listeners: Listeners = ()
    report: Reporter = print


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
    return start(_request(config, named, data, settings, registry, listeners))


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
    request = _request(config, components, data, settings, registry, ())
    return make_draft(request.layers, request.registry, request.live)


def _request(
    config: str | Path | None,
    named: Mapping[str, Any],
    data: str | Path | None,
    settings: Mapping[str, Any] | None,
    registry: Registry | None,
    listeners: Listeners,
) -> Request:
    live: dict[str, Any] = {}
    layer: dict[str, Any] = {"data": str(data)} if data is not None else {}
    for kind, given in named.items():
        if given is None:
            continue
        items = given if isinstance(given, list | tuple) else [given]
        names = [_name_of(item, live) for item in items]
        layer[kind] = names if kind in LIST_KINDS else names[0]
    files = [read_file(Path(config))] if config is not None else []
    arguments = layer_of(layer, "argument") | layer_of(settings or {}, "settings argument")
    return Request([*files, environment_layer(), arguments], live, registry or Registry(), listeners)


def _name_of(item: Any, live: dict[str, Any]) -> str:
    if isinstance(item, str):
        return item
    name = f"live:{getattr(item, '__qualname__', type(item).__qualname__)}"
    while live.get(name, item) is not item:
        name += "'"
    live[name] = item
    return name


def start(request: Request) -> RunResult:
    """Carry out a new run."""
    draft = make_draft(request.layers, request.registry, request.live)
    settings = draft.settings
    with contextlib.closing(
        RunDirectory.create(Path(settings.out) if settings.out else None, settings.name or draft.config["task.use"])
    ) as directory:
        _write_request(directory, draft, request)
        built = compose(draft, directory, request.listeners)
        with _recorded(built, directory, offset=0):
            return _carry_out(built, directory)


def resume(path: str | Path, request: Request | None = None) -> RunResult:
    """Go on with a run where its newest valid checkpoint stands.

    Args:
        path: the run directory.
        request: live objects, listeners and settings; of the settings only those that leave the result as it is.
    """
    request = request or Request([environment_layer()])
    with contextlib.closing(RunDirectory.open(Path(path))) as directory:
        config = Config.from_document(directory.read_json("resolved.json"))
        _apply_neutral(config, request.layers)
        plan = Plan.model_validate(directory.read_json("plan.json")["plan"])
        draft = restore_draft(config, plan, request.registry, request.live)
        _check_versions(directory, draft, request.report)
        built = compose(draft, directory, request.listeners)
        with _recorded(built, directory, offset=None, report=request.report):
            return _carry_out(built, directory)


NEUTRAL_SETTINGS = (
    "loop.workers",
    "checkpoint.every_steps",
    "checkpoint.every_epochs",
    "checkpoint.keep",
    "checkpoint.background",
    "threads",
)


def _apply_neutral(config: Config, layers: Sequence[Layer]) -> None:
    for layer in layers:
        for key, value in layer.items():
            if key in NEUTRAL_SETTINGS:
                config.history.setdefault(key, []).append(value)
            elif key not in config or config[key] != value.value:
                raise UsageError(
                    f"{key} cannot change when a run resumes",
                    where=value.origin,
                    why=f"the run was started with {config.get(key)!r}; only {', '.join(NEUTRAL_SETTINGS)} may change",
                    do="leave it out, or start a new run",
                )


def _check_versions(directory: RunDirectory, draft: Draft, report: Reporter) -> None:
    then = {(c["kind"], c["name"]): c for c in directory.read_json("components.json")}
    for now in components_of(draft):
        before = then.get((now["kind"], now["name"]))
        if before is not None and before["version"] != now["version"]:
            report(
                f"warning: {now['kind']} {now['name']} is {now['distribution']} {now['version']}; "
                f"the run was started with {before['version']}"
            )


def components_of(draft: Draft) -> list[dict[str, str]]:
    """Return kind, name, distribution and version of every component of a draft."""
    rows = [part.component for part in draft.parts.values()]
    rows += [part.component for parts in draft.lists.values() for part in parts.values()]
    return [{"kind": c.kind, "name": c.name, "distribution": c.distribution, "version": c.version} for c in rows]


def _write_request(directory: RunDirectory, draft: Draft, request: Request) -> None:
    asked: Layer = {}
    for layer in request.layers:
        asked.update(layer)
    resolved = {key: values[-1] for key, values in draft.config.history.items()}
    directory.write_text("config.toml", to_toml(asked))
    directory.write_text("resolved.toml", to_toml(resolved))
    directory.write_json("resolved.json", draft.config.document())
    directory.write_json("plan.json", plan_document(draft))
    directory.write_json("components.json", components_of(draft))
    directory.write_json("environment.json", environment())
    directory.status("running", reason="", step=0)


def plan_document(draft: Draft) -> dict[str, Any]:
    """Return plan, situation and stage lengths as JSON."""
    return {
        "plan": draft.plan.model_dump(mode="json"),
        "situation": draft.situation.model_dump(mode="json"),
        "stages": [
            {
                **planned.stage.model_dump(mode="json"),
                "length": planned.length.model_dump(mode="json"),
                "first_step": planned.first_step,
                "last_step": planned.last_step,
            }
            for planned in draft.stages
        ],
        "data": {
            "source": draft.splits.source,
            "fingerprint": draft.splits.fingerprint,
            "samples": {split: len(dataset) for split, dataset in draft.splits.items()},
            "warnings": list(draft.splits.warnings),
        },
    }


@contextlib.contextmanager
def _recorded(built: Run, directory: RunDirectory, offset: int | None, report: Reporter = print) -> Iterator[None]:
    """Open the run's files; with offset None, restore the newest valid checkpoint."""
    built.checkpoints = Checkpoints(directory.checkpoints, keep=built.settings.checkpoint.keep)
    built.metrics_file = MetricsFile(directory.path / "metrics.jsonl")
    try:
        checkpoint = built.checkpoints.newest_valid(report) if offset is None else None
        if offset is None:
            built.resumed = True
            _restore(built, checkpoint)
            report(f"resumed from {checkpoint.path.name}" if checkpoint else "no checkpoint yet: the run begins anew")
        yield
    finally:
        built.metrics_file.close()
        built.checkpoints.close()


def _restore(built: Run, checkpoint: Checkpoint | None) -> None:
    assert built.metrics_file is not None
    if checkpoint is None:
        built.metrics_file.truncate(0)
        return
    moment = saved_moment(checkpoint)
    if moment["stage"] < len(built.stages):
        # The schedule of the stage must stand before its state is loaded: enter every stage up to this one.
        for index in range(moment["stage"] + 1):
            built.moment.stage = index
            enter_stage(built, built.stages[index])
    restore(built, checkpoint)
    built.metrics_file.truncate(checkpoint.facts["metrics_offset"])


def _carry_out(built: Run, directory: RunDirectory) -> RunResult:
    """Train, take stock and write the report; the status file tells the end, whatever it is."""
    status = "failed"
    try:
        with heard(built):
            train(built)
            report_checkpoints(built, wait=True)
            results: Results = {}
            if built.signal is None:
                best_step = load_best(built)
                if built.settings.evaluate.final:
                    results = final_results(built)
        status, code = _ending(built)
        facts = summary(built, results, None if built.signal else best_step) | {
            "status": status,
            "exit_code": int(code),
        }
        directory.write_json("results.json", facts)
        write_report(directory)
        directory.status(
            status, reason=facts["stop_reason"], step=built.moment.step, best=built.best.value, exit_code=int(code)
        )
        return RunResult(status, code, directory.path, facts, built.model)
    except KeyboardInterrupt:
        status = "interrupted"
        directory.status(
            status, reason="interrupted twice", step=built.moment.step, exit_code=int(ExitCode.INTERRUPTED)
        )
        raise
    except Exception as error:
        reason = explained(built, error)
        code = reason.exit_code if isinstance(reason, TrainkitError) else ExitCode.INTERNAL
        directory.status("failed", reason=str(reason), step=built.moment.step, exit_code=int(code))
        raise reason from error
    finally:
        for hear in built.events.on_run_end:
            hear(built, status)


def _ending(built: Run) -> tuple[str, ExitCode]:
    if built.signal is None:
        return "done", ExitCode.DONE
    code = EXIT_CODES[built.signal]  # type: ignore[index]
    return ("stopped" if code is ExitCode.STOPPED else "interrupted"), code


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
    config = Config.from_document(directory.read_json("resolved.json"))
    plan = Plan.model_validate(directory.read_json("plan.json")["plan"])
    draft = restore_draft(config, plan, request.registry, request.live)
    datasets = dict(draft.splits.items())
    if split not in datasets:
        raise UsageError(f"there is no split '{split}'", why=f"the data has {', '.join(datasets)}")
    built = compose(draft, None, request.listeners)
    checkpoints = Checkpoints(directory.checkpoints)
    found = checkpoints.best() if checkpoint == "best" else None
    found = found or checkpoints.newest_valid(request.report)
    if found is None:
        raise CheckpointError(f"{directory.path} has no checkpoint yet", do=f"trainkit run --resume {directory.path}")
    moment = saved_moment(found)
    built.moment.load_state_dict(moment)
    found.load_into("model.safetensors", built.model.state_dict())
    return evaluate_split(built, split, datasets[split])


def cost_of(draft: Draft) -> Cost:
    """Return the measured cost of a draft: a few real steps on this machine, thrown away."""
    return measure(compose(draft))


__all__ = ["Request", "RunResult", "Value", "cost_of", "evaluate", "preview", "resume", "run", "start"]
