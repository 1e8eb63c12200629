"""Carrying out a run, new or resumed, in its directory, to whatever end it comes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blame import explained
from .checkpoint import Checkpoint, Checkpoints
from .compose import compose
from .config import Config, Layer
from .documents import components_of, read_documents, write_documents
from .draft import Draft, make_draft, restore_draft
from .errors import ExitCode, TrainkitError, UsageError
from .finish import Results, final_results, load_best, summary
from .live import Run
from .loop import enter_stage, train
from .report import write_report
from .request import Reporter, Request
from .routine import report_checkpoints
from .rundir import MetricsFile, RunDirectory
from .signals import EXIT_CODES, heard
from .snapshot import restore, saved_moment

if TYPE_CHECKING:
    from torch import nn

NEUTRAL_SETTINGS = (
    "loop.workers",
    "checkpoint.every_steps",
    "checkpoint.every_epochs",
    "checkpoint.keep",
    "checkpoint.background",
    "threads",
)


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


def start(request: Request) -> RunResult:
    """Carry out a new run."""
    draft = make_draft(request.layers, request.registry, request.live)
    settings = draft.settings
    with contextlib.closing(
        RunDirectory.create(Path(settings.out) if settings.out else None, settings.name or draft.config["task.use"])
    ) as directory:
        write_documents(directory, draft, request)
        built = compose(draft, directory, request.listeners)
        with _recorded(built, directory, offset=0):
            return _carry_out(built, directory)


def resume(path: str | Path, request: Request | None = None) -> RunResult:
    """Go on with a run where its newest valid checkpoint stands.

    Args:
        path: the run directory.
        request: live objects, listeners and settings; of the settings only those that leave the result as it is.
    """
    request = request or Request()
    with contextlib.closing(RunDirectory.open(Path(path))) as directory:
        config, plan = read_documents(directory)
        _apply_neutral(config, request.layers)
        draft = restore_draft(config, plan, request.registry, request.live)
        _check_versions(directory, draft, request.report)
        built = compose(draft, directory, request.listeners)
        with _recorded(built, directory, offset=None, report=request.report):
            return _carry_out(built, directory)


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
