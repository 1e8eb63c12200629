"""What an ablation will carry out: the full run and every run that lacks a part, with their steps, for each seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.childruns import fresh
from trainkit.compose import compose
from trainkit.config import Config, Value
from trainkit.documents import read_documents
from trainkit.draft import Draft, restore_draft
from trainkit.errors import UsageError
from trainkit.fit import direction
from trainkit.kinds import LIST_KINDS, ONE_KINDS
from trainkit.narrowing import narrowing_callbacks
from trainkit.parts import Loader
from trainkit.plan import Plan
from trainkit.resulttable import LOSS
from trainkit.resumption import check_versions
from trainkit.rundir import RunDirectory
from trainkit.settings import check_settings
from trainkit.stages import plan_stages, with_overrides

from .contribution import FULL
from .removals import ORIGIN, Removal, chosen, in_words, removals_of

if TYPE_CHECKING:
    from trainkit.costs.cost import Cost
    from trainkit.live import Run
    from trainkit.request import Request

SEEDS = 3
# Where a run lies and what it is called is its own; an ablation repeats by seeds, not by folds.
LEFT_OUT = ("out", "name", "folds", "refit")


@dataclass(frozen=True)
class Asked:
    """Hold what a user asks of an ablation.

    Args:
        only: labels or kinds of the parts to leave out; all if empty.
        seeds: how many seeds, from that of the run on.
        max_steps: where every run ends at the latest, in place of what the run was asked for.
    """

    only: Sequence[str] = ()
    seeds: int = SEEDS
    max_steps: int | None = None

    def arguments(self) -> list[str]:
        """Return it as arguments of the command."""
        only = ["--only", ",".join(self.only)] if self.only else []
        steps = ["--max-steps", str(self.max_steps)] if self.max_steps is not None else []
        return [*only, "--seeds", str(self.seeds), *steps]


@dataclass(frozen=True)
class PlannedRun:
    """Hold one run of an ablation: what it lacks (nothing: None), its seed, its folder, its optimizer steps."""

    removal: Removal | None
    seed: int
    folder: str
    steps: int

    @property
    def label(self) -> str:
        """Return the label of what it lacks, 'full' for the full run."""
        return self.removal.label if self.removal else FULL

    @property
    def name(self) -> str:
        """Return what it is called in messages."""
        return f"{f'without {self.label}' if self.removal else 'full run'}, seed {self.seed}"


@dataclass(frozen=True)
class AblationPlan:
    """Hold an ablation before it is carried out.

    Args:
        source: the directory of the run that is ablated.
        asked: what the user asked for.
        draft: of the full run.
        removals: what is left out, one by one.
        kept: the reason for each part that stays.
        runs: all runs in their order: seed by seed, so that the first seed already compares everything.
        monitor: the monitored tag.
        directions: 'min' or 'max' by the name of a figure without its split, where it is known which is better.
        warnings: what a user should know.
    """

    source: Path
    asked: Asked
    draft: Draft
    removals: Sequence[Removal]
    kept: Mapping[str, str]
    runs: Sequence[PlannedRun]
    monitor: str
    directions: Mapping[str, str]
    warnings: Sequence[str] = ()

    @property
    def seeds(self) -> list[int]:
        """Return the seeds in their order."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def seconds(self, cost: Cost) -> float:
        """Return a forecast of all runs from the measured cost of the full one: a step without a part costs as much."""
        return cost.seconds / self.draft.total_steps * sum(run.steps for run in self.runs)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "run": str(self.source),
            "monitor": self.monitor,
            "seeds": self.seeds,
            "parts": [
                {"part": each.label, "component": each.component, "in_its_place": each.null} for each in self.removals
            ],
            "kept": dict(self.kept),
            "directions": dict(self.directions),
            "warnings": list(self.warnings),
            "runs": [
                {"part": run.label, "seed": run.seed, "directory": run.folder, "steps": run.steps} for run in self.runs
            ],
        }


def plan_ablation(source: Path, asked: Asked, request: Request) -> AblationPlan:
    """Return what the ablation of a run will carry out; nothing is written.

    Args:
        source: a run directory, also of a cross-validation, whose settings are then ablated without its folds.
        asked: which parts, how many seeds, how long.
        request: live objects, registry, reporter.

    Raises:
        CheckpointError: it is no run directory, or its documents are damaged.
        UsageError: there is nothing to leave out, or a part that is asked for is not there.
    """
    if asked.seeds < 1:
        raise UsageError("an ablation needs a seed at least", where="--seeds", do="take three or more")
    directory = RunDirectory.read(source)
    config, plan = read_documents(directory)
    for key in LEFT_OUT:
        config.history.pop(key, None)
    if asked.max_steps is not None:
        config.add({"loop.max_steps": Value(asked.max_steps, ORIGIN, "--max-steps")})
    draft = restore_draft(config, plan, request.registry, fresh(request.live))
    check_versions(directory, draft, request.report)
    found, kept = removals_of(draft, fresh(request.live))
    wanted = chosen(found, kept, asked.only)
    full = compose(redrafted(draft, draft.config, plan, fresh(request.live)))
    monitor, directions = full.monitor, _directions(full)
    del full
    steps = {FULL: draft.total_steps}
    removals = []
    for removal in wanted:
        try:
            reduced = redrafted(draft, removal.config, removal.plan, fresh(request.live))
            compose(reduced)
        except UsageError as error:
            if asked.only:
                raise UsageError(
                    f"the run does not go without {removal.label}", where=error.where, why=error.what, do=error.do
                ) from error
            kept[removal.label] = f"the run does not go without it: {error.what}"
            continue
        removals.append(removal)
        steps[removal.label] = reduced.total_steps
    if not removals:
        raise UsageError("there is nothing to ablate", why=in_words(kept), do="ablate a run with other parts")
    runs = _runs(draft, removals, steps, asked.seeds)
    return AblationPlan(source, asked, draft, removals, kept, runs, monitor, directions, _warnings(asked))


def redrafted(draft: Draft, config: Config, plan: Plan, live: Mapping[str, Any]) -> Draft:
    """Return the draft of another config and plan on the same task, which keeps its data and what it learned of it."""
    loader = Loader(draft.registry, live)
    parts = {kind: loader.part(kind, config) for kind in ONE_KINDS}
    lists = {kind: loader.listed(kind, config) for kind in LIST_KINDS}
    settings = check_settings(config)
    narrowing = narrowing_callbacks(lists["callback"].items())
    stages = plan_stages(with_overrides(plan, config).stages, settings, draft.splits.train, narrowing)
    return replace(
        draft, config=config, settings=settings, plan=plan, parts=parts, lists=lists, stages=stages, spare_model=None
    )


def _runs(draft: Draft, removals: Sequence[Removal], steps: Mapping[str, int], count: int) -> list[PlannedRun]:
    folders = _folders([FULL, *(removal.label for removal in removals)])
    first = draft.settings.seed
    return [
        PlannedRun(removal, seed, f"{folders[label]}/seed-{seed}", steps[label])
        for seed in range(first, first + count)
        for removal in (None, *removals)
        for label in (removal.label if removal else FULL,)
    ]


def _folders(labels: Sequence[str]) -> dict[str, str]:
    """Return for each label a folder of its own, whatever its component is called."""
    found: dict[str, str] = {}
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip(".-") or "part"
        while name in found.values():
            name += "-"
        found[label] = name
    return found


def _directions(run: Run) -> dict[str, str]:
    """Return 'min' or 'max', whichever is better, for the monitored figure, the loss and each metric's own."""
    names = [LOSS, *(bound.name for bound in run.metrics)]
    found = {name: direction(f"val/{name}", run.metrics) for name in names}
    return found | {run.monitor.partition("/")[2]: run.monitor_mode}


def _warnings(asked: Asked) -> list[str]:
    if asked.seeds >= SEEDS:
        return []
    which = "one seed has no interval" if asked.seeds == 1 else "an interval over two seeds is nearly always too wide"
    return [f"{which}: take {SEEDS} seeds or more, by --seeds {SEEDS}"]
