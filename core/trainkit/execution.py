"""Carrying out a run, new or resumed, in its directory, to whatever end it comes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import FOLDER
from .baserate import base_rate
from .blame import explained
from .checkpoint import Checkpoint, Checkpoints
from .compose import compose
from .config import short_name
from .documents import read_documents, write_documents
from .draft import Draft, restore_draft
from .errors import CheckpointError, ExitCode, TrainkitError
from .evaluation import Interrupted
from .finish import Results, final_results, load_best, summary
from .live import Run
from .loop import enter_stage, train
from .lrfind.foundrate import take_found_rate
from .ranks.asked import check_shares, join_again
from .ranks.states import same_checkpoint
from .ranks.world import ALONE, World
from .report import write_report
from .request import Reporter, Request
from .resumption import apply_neutral, check_versions, is_done
from .routine import report_checkpoints
from .rundir import MetricsFile, RunDirectory, rows
from .signals import EXIT_CODES, heard
from .snapshot import restore, restore_weights, saved_state
from .starting import settle, without_start
from .storage.strict_json import with_special_numbers
from .weights import base_files

if TYPE_CHECKING:
    from torch import nn

TWICE = "interrupted twice"
OTHER_RANKS = (
    "ranks now: {now}, before: {then}. The order of samples stays; gradients are summed in another order, so their "
    "last bits differ, and so does what a rank draws at random, as dropout"
)
_log = logging.getLogger(__name__)


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


def start(draft: Draft, request: Request) -> RunResult:
    """Carry out the new run of a draft; the request's layers say what the user asked for."""
    # A request that is refused leaves no directory behind, so everything that can be refused is built before.
    built = compose(draft, None, request.listeners)
    if draft.settings.lr_find:
        base_rate(built)
    settle(built)
    for warning in draft.warnings:
        _log.warning("%s", warning)
    out = Path(draft.settings.out) if draft.settings.out else None
    name = draft.settings.name or short_name(draft.config["task.use"])
    with contextlib.closing(_new_directory(out, name, built.world)) as directory:
        built.directory = directory if built.world.is_first else None
        write_documents(directory, draft, request)
        if draft.settings.lr_find:
            # It has shown what must be refused; another model is built only when this one is gone.
            del built
            built = _searched(draft, directory, request)
        with _recorded(built, directory, offset=0):
            return _carry_out(built, directory)


def _new_directory(out: Path | None, name: str, world: World) -> RunDirectory:
    """Return a new run directory, which rank 0 makes; the others only know of it."""
    if world.is_first:
        directory = RunDirectory.create(out, name)
        world.firsts(str(directory.path.absolute()))
        return directory
    return RunDirectory(Path(world.firsts(None)), writes=False)


def resume(path: str | Path, request: Request | None = None, world: World = ALONE) -> RunResult:
    """Go on with a run where its newest valid checkpoint stands; of one that is done, return what it came to.

    Args:
        path: the run directory.
        request: live objects, listeners and settings; of the settings only those that leave the result as it is.
        world: which rank this process is.
    """
    request = request or Request()
    with contextlib.ExitStack() as stack:
        directory = RunDirectory.open(Path(path)) if world.is_first else RunDirectory(Path(path), writes=False)
        stack.enter_context(contextlib.closing(directory))
        config, plan = read_documents(directory)
        apply_neutral(config, request.layers)
        if Checkpoints(directory.checkpoints, read_only=True).steps():
            without_start(config)
        join_again(config, request, world, stack)
        draft = restore_draft(config, plan, request.registry, request.live, world)
        check_shares(draft)
        check_versions(directory, draft, request.report)
        if is_done(directory) and (result := _result_of(compose(draft), directory)):
            request.report("this run is done: nothing is left to train")
            return result
        if draft.settings.lr_find:
            built = _searched(draft, directory, request)
        else:
            built = compose(draft, directory if world.is_first else None, request.listeners)
        with _recorded(built, directory, offset=None, report=request.report):
            return _carry_out(built, directory)


def _searched(draft: Draft, directory: RunDirectory, request: Request) -> Run:
    """Return the run of a draft at the learning rate that a range test found; a signal that ends the test ends both."""
    try:
        signal = take_found_rate(draft, directory, request.report)
    except KeyboardInterrupt:
        directory.status("interrupted", reason=TWICE, step=0, exit_code=int(ExitCode.INTERRUPTED))
        raise
    except (Exception, SystemExit) as error:
        note_failure(directory, error, step=0)
        raise
    built = compose(draft, directory, request.listeners)
    built.signal = signal
    return built


def _result_of(built: Run, directory: RunDirectory) -> RunResult | None:
    """Return the result of a run that is done, as it stands in its directory; None where a part of it is damaged."""
    built.checkpoints = Checkpoints(directory.checkpoints, read_only=True)
    try:
        checkpoint = built.checkpoints.best() or built.checkpoints.newest_valid()
        facts = with_special_numbers(directory.read_json("results.json"))
    except CheckpointError:
        return None
    if checkpoint is not None:
        restore_weights(built, checkpoint, saved_state(checkpoint))
    return RunResult("done", ExitCode.DONE, directory.path, facts, built.model)


@contextlib.contextmanager
def _recorded(built: Run, directory: RunDirectory, offset: int | None, report: Reporter = print) -> Iterator[None]:
    """Open the run's files; with offset None, restore the newest valid checkpoint."""
    kept, is_first = built.settings.checkpoint, built.world.is_first
    if is_first:
        built.checkpoints = Checkpoints(directory.checkpoints, keep=kept.keep, keep_best=kept.keep_best)
        built.metrics_file = MetricsFile(directory.path / "metrics.jsonl")
    try:
        if offset is None:
            found = built.checkpoints.newest_valid(report) if built.checkpoints is not None else None
            if found is None and is_first:
                _refuse_damaged(directory)
                report("no checkpoint yet: the run begins anew")
            elif found is not None and (made := found.facts.get("ranks", 1)) != built.world.size:
                report(OTHER_RANKS.format(now=built.world.size, then=made))
            built.resumed = True
            _restore(built, same_checkpoint(built.world, found))
        if built.base is not None and is_first:
            built.base.keep(directory.path / FOLDER, partial(base_files, built))
        yield
    finally:
        if built.metrics_file is not None:
            built.metrics_file.close()
        if built.checkpoints is not None:
            built.checkpoints.close()
        if built.base is not None:
            built.base.close()


def _refuse_damaged(directory: RunDirectory) -> None:
    """Raise CheckpointError if all checkpoints of a run are damaged: to begin anew is for the user to decide."""
    damaged = sorted(path.name for path in directory.checkpoints.glob("checkpoint-*.corrupt*"))
    if damaged:
        raise CheckpointError(
            "no checkpoint of this run is whole",
            where=str(directory.checkpoints),
            why=f"damaged: {', '.join(damaged)}",
            do=f"put a copy back, or begin anew: trainkit run {directory.path / 'config.toml'} --out NEW_RUN_DIR",
        )


def _restore(built: Run, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        if built.metrics_file is not None:
            built.metrics_file.truncate(0)
        return
    state = saved_state(checkpoint)
    moment = state["moment"]
    if moment["stage"] < len(built.stages):
        # The schedule of the stage must stand before its state is loaded: enter every stage up to this one.
        for index in range(moment["stage"] + 1):
            built.moment.stage = index
            enter_stage(built, built.stages[index])
    restore(built, checkpoint, state)
    if built.metrics_file is not None:
        built.metrics_file.truncate(checkpoint.facts["metrics_offset"])
        elapsed = [row["time/elapsed"] for row in rows(built.metrics_file.path) if "time/elapsed" in row]
        built.forecast.before = elapsed[-1] if elapsed else 0.0
    if built.checkpoints is not None:
        # A later checkpoint that turned out to be damaged may have pushed some out before.
        there = built.checkpoints.steps()
        ranking = tuple(entry for entry in built.best.ranking if entry.step in there)
        built.best.ranking = ranking[: built.settings.checkpoint.keep_best]
        # A kill between a checkpoint's commit and the naming of the best leaves the name behind.
        built.checkpoints.mark_best(built.best.ranking)


def _carry_out(built: Run, directory: RunDirectory) -> RunResult:
    """Train, take stock and write the report; the status file tells the end, whatever it is."""
    try:
        result = _trained(built, directory)
        _announce_end(built, result.status)
        return result
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
        directory.status("interrupted", reason=TWICE, step=built.moment.step, exit_code=int(code))
        _announce_end(built, "interrupted")
        raise
    except (Exception, SystemExit) as error:
        reason = explained(built, error)
        note_failure(directory, reason, built.moment.step)
        with contextlib.suppress(Exception):
            _announce_end(built, "failed")
        raise reason from error


def note_failure(directory: RunDirectory, reason: BaseException, step: int) -> None:
    """Write a failure into the status file; what fails here, as on a full disk, is a consequence of the first one."""
    code = reason.exit_code if isinstance(reason, TrainkitError) else ExitCode.INTERNAL
    # Twice: PyTorch raises the loss of a worker process from a signal handler, wherever the program is, and once.
    for _ in range(2):
        with contextlib.suppress(Exception):
            directory.status("failed", reason=str(reason), step=step, exit_code=int(code))
            return


def _trained(built: Run, directory: RunDirectory) -> RunResult:
    results: Results = {}
    best_step = None
    with heard(built.ears):
        train(built)
        report_checkpoints(built, wait=True)
        if built.signal is None:
            # A signal ends the last evaluations too; the resumed run does them again.
            with contextlib.suppress(Interrupted):
                best_step = load_best(built)
                results = final_results(built) if built.settings.evaluate.final else {}
    status, code = _ending(built)
    facts = summary(built, results, best_step) | {"status": status, "exit_code": int(code)}
    directory.write_json("results.json", facts)
    if built.world.is_first:
        write_report(directory)
    directory.status(
        status, reason=facts["stop_reason"], step=built.moment.step, best=built.best.value, exit_code=int(code)
    )
    return RunResult(status, code, directory.path, facts, built.model)


def _announce_end(built: Run, status: str) -> None:
    """Announce the end to those who have not heard of it: one that fails there is not asked again."""
    while built.events.on_run_end:
        built.events.on_run_end.pop(0)(built, status)


def _ending(built: Run) -> tuple[str, ExitCode]:
    if built.signal is None:
        return "done", ExitCode.DONE
    code = EXIT_CODES[built.signal]  # type: ignore[index]
    return ("stopped" if code is ExitCode.STOPPED else "interrupted"), code
