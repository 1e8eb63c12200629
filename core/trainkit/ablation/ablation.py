"""Ablation: the same run again without one of its parts at a time, each with the same seeds, and what each contributes.

    RUN-ablation/full/seed-0 ..      the run as it was
    RUN-ablation/PART/seed-0 ..      the run without a part

Every one of them is a run directory, complete in itself, with the plan and the settings of the run that is ablated but
for the part and the seed. What is done is not done again; what was stopped goes on where it stood.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainkit import execution
from trainkit.childruns import PartListener, carry_out, done_summary, fresh, guarded, is_begun
from trainkit.config import NOTHING, Config, Layer, Value
from trainkit.draft import restore_draft
from trainkit.errors import ExitCode, RunFailed, UsageError
from trainkit.execution import RunResult
from trainkit.kinds import LIST_KINDS
from trainkit.partof import PartOf
from trainkit.request import Request
from trainkit.rundir import LOCK, STATUS, RunDirectory
from trainkit.signals import EXIT_CODES
from trainkit.sources import read_file
from trainkit.storage.strict_json import without_special_numbers

from .plan import AblationPlan, PlannedRun
from .removals import ORIGIN
from .report import RECORD, record, write_pages

SUFFIX = "-ablation"


@dataclass(frozen=True)
class AblationResult:
    """Hold how an ablation ended.

    Args:
        status: done, stopped, or interrupted.
        exit_code: what the command line exits with.
        directory: where its runs and its report are.
        document: as in ablation.json: runs, figures of the full run, contributions.
    """

    status: str
    exit_code: ExitCode
    directory: Path
    document: dict[str, Any]


def start(plan: AblationPlan, request: Request, out: Path | None = None) -> AblationResult:
    """Carry out an ablation, or go on with it: what is done in its directory is not done again.

    Args:
        plan: what is to be done; further seeds and parts may come to those that are there.
        request: live objects, registry, listeners, reporter.
        out: where; beside the run if not given, as RUN-ablation.

    Raises:
        UsageError: the directory holds something else, as an ablation with other settings.
    """
    source = plan.source if plan.source.name not in ("", "..") else plan.source.resolve()
    path = out if out is not None else source.with_name(source.name + SUFFIX)
    resume = ["trainkit", "ablate", *plan.asked.arguments(), *(("--out", str(out)) if out is not None else ())]
    with contextlib.closing(_directory(path, _settings(plan))) as directory:
        for warning in plan.warnings:
            request.report(f"warning: {warning}")
        return _Ablation(directory, plan, request, shlex.join(resume)).carry_out()


def _settings(plan: AblationPlan) -> dict[str, Any]:
    """Return the settings of the full run, by which an ablation is known again, as JSON has them."""
    config = plan.draft.config
    settings: dict[str, Any] = without_special_numbers({key: config[key] for key in config})
    return settings


def _directory(path: Path, settings: Mapping[str, Any]) -> RunDirectory:
    """Return the locked directory of an ablation, a new one or one with the same settings."""
    if not (path / RECORD).is_file():
        # One that a kill left without its record holds nothing yet.
        directory = RunDirectory.open(path) if _is_empty(path) else RunDirectory.create(path, path.name)
        directory.write_json(RECORD, {"settings": settings})
        return directory
    directory = RunDirectory.open(path)
    try:
        _check_same(directory, settings)
    except BaseException:
        directory.close()
        raise
    return directory


def _is_empty(path: Path) -> bool:
    return (path / STATUS).is_file() and {file.name for file in path.iterdir()} <= {STATUS, LOCK}


def _check_same(directory: RunDirectory, settings: Mapping[str, Any]) -> None:
    there = directory.read_json(RECORD).get("settings", {})
    if there != settings:
        differ = sorted(key for key in there.keys() | settings.keys() if there.get(key) != settings.get(key))
        raise UsageError(
            "this folder holds the ablation of a run with other settings",
            where=str(directory.path),
            why=f"they differ in {', '.join(differ)}",
            do="name another folder by --out, or remove this one",
        )


@dataclass
class _Ablation:
    """Carry out the runs of an ablation, one after the other.

    Args:
        directory: of the whole, locked.
        plan: the runs.
        request: live objects, registry, listeners, reporter.
        resume: the command that goes on with it, the run's directory left out.
    """

    directory: RunDirectory
    plan: AblationPlan
    request: Request
    resume: str
    signal: int | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def carry_out(self) -> AblationResult:
        """Carry out what is not done, and write what all of it came to."""
        with guarded(self, self.directory, self._steps):
            return self._carried_out()

    def _carried_out(self) -> AblationResult:
        for number, planned in enumerate(self.plan.runs):
            if self.signal is not None:
                code = EXIT_CODES[self.signal]  # type: ignore[index]
                return self._ended("stopped" if code is ExitCode.STOPPED else "interrupted", code)
            self._status("running", f"{planned.name}: {number} of {len(self.plan.runs)} runs are over")
            path = self.directory.path / planned.folder
            row = self._over(planned, path)
            if row is None:
                try:
                    result = self._run(number, planned, path)
                except RunFailed as error:
                    if planned.removal is None:
                        raise
                    # That a run does not go well without a part is what an ablation is to find out.
                    self.request.report(f"{planned.name} failed: {error.what}")
                    row = _row(planned, {"status": "failed", "reason": error.what})
                else:
                    if result.status != "done":
                        return self._ended(result.status, result.exit_code)
                    row = _row(planned, result.summary)
            self.rows.append(row)
            self._write()
        return self._ended("done", ExitCode.DONE)

    def _over(self, planned: PlannedRun, path: Path) -> dict[str, Any] | None:
        """Return the row of a run that is done or failed before; None for one that is to be carried out."""
        if (summary := done_summary(path)) is not None:
            return _row(planned, summary)
        if planned.removal is not None and is_begun(path):
            status = RunDirectory.read(path).read_json("status.json")
            if status["state"] == "failed" and status["exit_code"] == ExitCode.RUN_FAILED:
                reason = str(status["reason"]).splitlines()[0]
                self.request.report(f"{planned.name} failed before: {reason}; to try again, remove {path}")
                return _row(planned, {"status": "failed", "reason": reason})
        return None

    def _run(self, number: int, planned: PlannedRun, path: Path) -> RunResult:
        took = [float(row["seconds"]) for row in self.rows]
        steps = [each.steps for each in self.plan.runs]
        part = PartOf(self.plan.source, planned.name, steps, number, took, kind="run", resume=self.resume)
        listeners = [("ablation", PartListener(part, self)), *self.request.listeners]
        request = replace(self.request, live=fresh(self.request.live), listeners=listeners)

        def begin() -> RunResult:
            own = {"seed": Value(planned.seed, ORIGIN), "out": Value(str(path), ORIGIN)}
            removal = planned.removal
            config = Config.from_document((removal.config if removal else self.plan.draft.config).document())
            config.add(own)
            plan = removal.plan if removal else self.plan.draft.plan
            draft = restore_draft(config, plan, request.registry, request.live)
            return execution.start(draft, replace(request, layers=[self._asked(config)]))

        return carry_out(path, begin, request)

    def _asked(self, config: Config) -> Layer:
        """Return what the user asked of the run that is ablated, as it stands in the config of one of these."""
        asked = read_file(self.plan.source / "config.toml")
        changed = {key: config.history[key][-1] for key in config if config.origin(key) == ORIGIN}
        for kind in LIST_KINDS:
            if kind in changed:
                # Callbacks add up: what a strategy proposes must not come back.
                changed[kind] = Value([NOTHING, *changed[kind].value], ORIGIN)
        return {key: value for key, value in asked.items() if key in config} | changed

    def _steps(self) -> int:
        return sum(int(row["steps"]) for row in self.rows)

    def _status(self, state: str, reason: str = "", code: ExitCode | None = None) -> None:
        number = int(code) if code is not None else None
        self.directory.status(state, reason=reason, step=self._steps(), exit_code=number)

    def _write(self) -> dict[str, Any]:
        document = {"settings": _settings(self.plan)} | record(self.plan, self.rows)
        self.directory.write_json(RECORD, document)
        return document

    def _ended(self, status: str, code: ExitCode) -> AblationResult:
        document = self._write()
        write_pages(self.directory, document)
        reason = "" if status == "done" else f"{len(self.rows)} of {len(self.plan.runs)} runs are over"
        self._status(status, reason, code)
        return AblationResult(status, code, self.directory.path, document)


def _row(planned: PlannedRun, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run came to, as JSON."""
    results = summary.get("results", {}).get("model", {})
    best, monitor = summary.get("best"), summary.get("monitor", "")
    if best is not None:
        results = {monitor: best} | results
    return {
        "part": planned.label,
        "seed": planned.seed,
        "directory": planned.folder,
        "status": summary.get("status", "done"),
        "reason": summary.get("reason", ""),
        **{name: summary.get(name, 0) for name in ("steps", "epochs", "samples", "seconds")},
        "best_step": summary.get("best_step"),
        "results": results,
    }
