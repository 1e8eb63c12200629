"""Cross-validation: a run for each fold, then one on all samples, each complete in itself, in one run directory.

    RUN/folds/1 .. RUN/folds/K, RUN/final

Every one of them has the same settings and the same plan, and begins anew: task, model, loss, optimizer, callbacks.
What is done is not done again; what was stopped goes on where it stood.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import execution
from trainkit.baserate import base_rate
from trainkit.childruns import RESULTS, PartListener, carry_out, done_summary, fresh, guarded
from trainkit.compose import compose
from trainkit.config import Config, Layer, Value, short_name
from trainkit.curve import check_schedule
from trainkit.documents import read_documents, write_documents
from trainkit.draft import Draft, restore_draft
from trainkit.errors import CheckpointError, ExitCode, UsageError
from trainkit.execution import RunResult
from trainkit.kinds import LIST_KINDS, ONE_KINDS
from trainkit.modelpath import RECORD
from trainkit.partof import PartOf
from trainkit.parts import Loader
from trainkit.plan import Plan
from trainkit.report import write_report
from trainkit.request import Request
from trainkit.resumption import apply_neutral, is_done
from trainkit.rundir import RunDirectory
from trainkit.signals import EXIT_CODES
from trainkit.sources import read_file

from .figures import spread, spreads
from .plan import FoldPlan, PlannedFold, plan_folds, with_layer
from .rows import ROWS, FoldListener, rows_of

if TYPE_CHECKING:
    from torch import nn

    from trainkit.contracts import Splits
    from trainkit.costs.forecast import Forecast

_log = logging.getLogger(__name__)


def start(draft: Draft, request: Request) -> RunResult:
    """Carry out a new cross-validation of what a draft plans."""
    planned = plan_folds(draft, request.live)
    _check(draft, request)
    for warning in (*draft.warnings, *planned.warnings):
        _log.warning("%s", warning)
    out = Path(draft.settings.out) if draft.settings.out else None
    name = draft.settings.name or short_name(draft.config["task.use"])
    with contextlib.closing(RunDirectory.create(out, name)) as directory:
        directory.write_json(RECORD, _record(draft, planned))
        write_documents(directory, draft, request)
        return CrossValidation(directory, draft.config, draft.plan, planned.folds, request).carry_out()


def resume(path: Path, request: Request) -> RunResult:
    """Go on with a cross-validation: what is done stays, what was stopped goes on, the rest follows."""
    with contextlib.closing(RunDirectory.open(path)) as directory:
        config, plan = read_documents(directory)
        apply_neutral(config, request.layers)
        record = directory.read_json(RECORD)
        try:
            planned = [PlannedFold.of(document) for document in record["runs"]]
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise CheckpointError(
                "a file of the run directory is damaged",
                where=str(path / RECORD),
                why=str(error).splitlines()[0],
                do="put it back from a copy, or start a new run",
            ) from error
        if is_done(directory):
            request.report("this run is done: nothing is left to train")
            request = replace(request, report=lambda _: None)
        return CrossValidation(directory, config, plan, planned, request).carry_out()


def _record(draft: Draft, planned: FoldPlan) -> dict[str, Any]:
    return {
        "folds": draft.settings.folds,
        "seed": draft.settings.seed,
        "refit": draft.settings.refit,
        "warnings": list(planned.warnings),
        "runs": [each.document() for each in planned.folds],
    }


def _check(draft: Draft, request: Request) -> None:
    """Refuse what could not be carried out, before anything is written; the last run has no validation."""
    splits = draft.splits
    live = fresh(request.live)
    draft.spare_model = None
    validated = replace(splits, val=splits.val or splits.train, test=None)
    built = compose(_anew(draft, live, validated))
    if draft.settings.lr_find:
        base_rate(built)
    del built
    if not draft.settings.refit:
        return
    unvalidated = _anew(draft, live, replace(splits, val=None))
    try:
        check_schedule(unvalidated)
        compose(unvalidated)
    except UsageError as error:
        raise UsageError(
            error.what,
            where=error.where,
            why="after the folds a run on all samples has no validation",
            do="leave that run out, by --set refit=false, or take a part that needs no validation",
        ) from error


def _anew(draft: Draft, live: Mapping[str, Any], splits: Splits) -> Draft:
    """Return a draft with other splits and with parts of these live objects; its task stays, with what it learned."""
    loader = Loader(draft.registry, live)
    parts = {kind: loader.part(kind, draft.config) for kind in ONE_KINDS}
    lists = {kind: loader.listed(kind, draft.config) for kind in LIST_KINDS}
    return replace(draft, splits=splits, parts=parts, lists=lists)


@dataclass
class CrossValidation:
    """Carry out the runs of a cross-validation, one after the other.

    Args:
        directory: of the whole, locked.
        config: what holds for all of them.
        plan: the same.
        planned: the runs.
        request: live objects, registry, listeners, reporter; on resume, neutral settings.
    """

    directory: RunDirectory
    config: Config
    plan: Plan
    planned: Sequence[PlannedFold]
    request: Request
    signal: int | None = None
    finished: list[dict[str, Any]] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    forecast: Forecast | None = None

    def carry_out(self) -> RunResult:
        """Carry out what is not done and return what all of it came to; the status file tells the end."""
        with guarded(self, self.directory, self._steps):
            return self._carried_out()

    def _carried_out(self) -> RunResult:
        result: RunResult | None = None
        for number, planned in enumerate(self.planned):
            if self.signal is not None and result is not None:
                code = EXIT_CODES[self.signal]  # type: ignore[index]
                status = "stopped" if code is ExitCode.STOPPED else "interrupted"
                return self._ended(status, code, result.model)
            self._status("running", f"{planned.name}, {number} of {len(self.planned)} runs done")
            began = time.perf_counter()
            result = self._one(number, planned)
            if result is None:
                continue
            # With reading, the final table and the rows: what the user waits for.
            self.took.append(time.perf_counter() - began)
            if result.status != "done":
                return self._ended(result.status, result.exit_code, result.model)
            self._note(planned, result.summary)
        assert result is not None
        return self._ended("done", ExitCode.DONE, result.model)

    def _one(self, number: int, planned: PlannedFold) -> RunResult | None:
        """Carry out one of the runs, or go on with it; None for one that is done, unless its model is the last."""
        path = self.directory.path / planned.folder
        if number < len(self.planned) - 1 and (summary := done_summary(path)) is not None:
            self._note(planned, summary)
            self.took.append(float(summary["seconds"]))
            return None
        part = PartOf(
            self.directory.path,
            planned.name,
            self._steps_ahead(),
            number,
            tuple(self.took),
            samples=[each.samples for each in self.planned],
            answers_again=True,
            began=time.perf_counter(),
        )
        listener = PartListener(part, self, self.forecast)
        own = [("folds", listener), ("out-of-fold rows", FoldListener(planned.fold))]
        request = replace(self.request, live=fresh(self.request.live), listeners=[*own, *self.request.listeners])

        def begin() -> RunResult:
            layer = self._layer(planned, path)
            asked = [read_file(self.directory.path / "config.toml"), layer]
            config = with_layer(self.config, layer)
            draft = restore_draft(config, self.plan, request.registry, request.live)
            return execution.start(draft, replace(request, layers=asked))

        result = carry_out(path, begin, request)
        self.forecast = listener.forecast
        return result

    def _layer(self, planned: PlannedFold, path: Path) -> Layer:
        layer = planned.layer() | {"out": Value(str(path), planned.name)}
        if planned.is_final:
            best = [row["best_step"] for row in self.finished]
            reason = f"mean of the steps at which the folds were best: {', '.join(map(str, best))}"
            layer["loop.max_steps"] = Value(self._best_steps(), planned.name, reason)
        return layer

    def _best_steps(self) -> int:
        """Return the mean of the steps at which the folds were best."""
        best = [int(row["best_step"]) for row in self.finished]
        return max(1, round(sum(best) / len(best)))

    def _steps_ahead(self) -> list[int]:
        """Return the steps of each run, of the last one as far as the folds tell."""
        return [
            min(each.steps, self._best_steps()) if each.is_final and self.finished else each.steps
            for each in self.planned
        ]

    def _note(self, planned: PlannedFold, summary: Mapping[str, Any]) -> None:
        """Note what a run came to."""
        best_step = summary["best_step"]
        self.finished.append(
            {
                "fold": str(planned.fold),
                "directory": planned.folder,
                "samples": dict(planned.samples),
                "steps": summary["steps"],
                "best_step": summary["steps"] if best_step is None else best_step,
                **{name: summary[name] for name in ("epochs", "best", "monitor", "seconds", "results", "stop_reason")},
                "trained_on": summary["samples"],
            }
        )

    def _steps(self) -> int:
        return sum(int(row["steps"]) for row in self.finished)

    def _status(self, state: str, reason: str = "", code: ExitCode | None = None, best: float | None = None) -> None:
        number = int(code) if code is not None else None
        self.directory.status(state, reason=reason, step=self._steps(), best=best, exit_code=number)

    def _ended(self, status: str, code: ExitCode, model: nn.Module) -> RunResult:
        """Write what there is so far, and how it ended."""
        facts = self._summary() | {"status": status, "exit_code": int(code)}
        done = [each for each in self.planned if str(each.fold) in {row["fold"] for row in self.finished}]
        folds = [each for each in done if not each.is_final]
        self.directory.write_bytes(ROWS, b"".join(rows_of(self.directory.path, each, self.request) for each in folds))
        self.directory.write_json(RESULTS, facts)
        write_report(self.directory)
        reason = "" if status == "done" else f"{len(done)} of {len(self.planned)} runs done"
        self._status(status, reason, code, facts["best"])
        return RunResult(status, code, self.directory.path, facts, model)

    def _summary(self) -> dict[str, Any]:
        """Return what the runs that are done came to, as JSON."""
        folds = [row for row in self.finished if row["fold"] != "all"]
        final = next((row for row in self.finished if row["fold"] == "all"), None)
        figures = spreads([row["results"] for row in folds])
        best = spread([float(row["best"]) if row["best"] is not None else float("nan") for row in folds])
        results = {who: {tag: each.mean for tag, each in tags.items()} for who, tags in figures.items()}
        for who, rows in (final["results"] if final else {}).items():
            results[who] = results.get(who, {}) | rows
        return {
            "strategy": self.plan.strategy,
            "folds": len([each for each in self.planned if not each.is_final]),
            "steps": self._steps(),
            "epochs": sum(row["epochs"] for row in self.finished),
            "samples": sum(row["trained_on"] for row in self.finished),
            "seconds": round(sum(float(row["seconds"]) for row in self.finished), 3),
            "stop_reason": "",
            "monitor": self.finished[0]["monitor"] if self.finished else "",
            "best": best.mean if folds and best.mean == best.mean else None,
            "best_step": final["steps"] if final else None,
            "results": results,
            "runs": self.finished,
            "figures": {who: {tag: each.document() for tag, each in tags.items()} for who, tags in figures.items()},
            "best_of_folds": best.document() if folds else None,
        }
