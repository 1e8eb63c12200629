"""The learning-rate finder: a range test on a run, which is left as it was, and a rate found taken into a run."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .baserate import KEY, base_rate, check_can_find
from .blame import told
from .compose import compose
from .config import Value
from .data import EpochBatches, windows
from .documents import write_resolved
from .errors import Diverged, UsageError
from .live import set_trainable
from .loop import admitted_draws, train_step
from .rangetest import AXES, FEWEST_STEPS, HIGH, LOW, RULES, STEPS, Axis, RangeTest, Rule, averages, has_exploded, rates
from .reporting.answerfiles import empty_folder, numbered_folder
from .signals import heard
from .storage import strict_json
from .storage.filesystem import disk_error
from .unchanged import unchanged

if TYPE_CHECKING:
    from .draft import Draft
    from .live import Run
    from .request import Reporter
    from .rundir import RunDirectory
    from .stages import PlannedStage

SETTING = "lr_find"
RECORD, PLOT = "lr_find.json", "lr_find.png"

Tested = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Search:
    """Hold what is asked of a range test.

    Args:
        low: the smallest rate, above 0.
        high: the largest rate.
        steps: how many rates, an optimizer step each; 13 at least, as the first 10 and the last do not count.
        rule: which suggestion counts: steepest, valley or minimum.
        axis: log or linear: by which the steepest slope is meant.

    Raises:
        UsageError: one of them is out of its range.
    """

    low: float = LOW
    high: float = HIGH
    steps: int = STEPS
    rule: Rule = "steepest"
    axis: Axis = "log"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and 0 < self.low < self.high):
            raise UsageError(
                f"the rates of a range test go up from a smallest above 0 (got {self.low:g} to {self.high:g})",
                do=f"take --min and --max as {LOW:g} and {HIGH:g}, which are the defaults",
            )
        if self.steps < FEWEST_STEPS:
            raise UsageError(
                f"a range test needs {FEWEST_STEPS} steps at least (got {self.steps})",
                why="the first 10 and the last do not count, and a slope has two ends",
                do=f"take {STEPS}, which is the default",
            )
        for name, given, allowed in (("rule", self.rule, RULES), ("axis", self.axis, AXES)):
            if given not in allowed:
                raise UsageError(
                    f"there is no {name} '{given}' in a range test", why=f"there are: {', '.join(allowed)}"
                )


def find(run: Run, search: Search | None = None, tested: Tested | None = None) -> RangeTest:
    """Test rates on a run from its first steps on, and leave the run as it was, to the bit.

    Each rate is that of `optimizer.lr` for one optimizer step: parameter groups keep their ratios to it, and the stage
    its factor. Accumulation, clipping and the scaling of gradients are those of the run; there is no scheduler, no
    evaluation and no checkpoint. The task and all components hear the events of training. Take a run without callbacks,
    as `without_callbacks` gives, where they are not to hear, or change, what is tested.

    Args:
        run: a composed run.
        search: which rates.
        tested: hears the number, the rate and the loss of each step.

    Raises:
        UsageError: a rate has no meaning for this optimizer or in this plan.
        PluginError: a component cannot be put back as it was.
    """
    base = base_rate(run)
    with unchanged(run):
        return _tested(run, base, search or Search(), tested)


def without_callbacks(draft: Draft) -> Draft:
    """Return a draft of the same run without callbacks: what shows, stops, averages or disturbs is not tested."""
    return replace(draft, spare_model=draft.fresh_model(), lists={**draft.lists, "callback": {}})


def find_in(draft: Draft, search: Search | None = None, tested: Tested | None = None) -> RangeTest:
    """Return the range test of a draft, on a run of its own; a signal ends it at the next step.

    Raises:
        UsageError: see `find`.
    """
    check_can_find(draft)
    run = compose(without_callbacks(draft))
    with told(run), heard(run):
        return find(run, search, tested)


def _tested(run: Run, base: float, search: Search, tested: Tested | None) -> RangeTest:
    planned = run.stages[0]
    run.scheduler = None
    run.moment.stage = 0
    set_trainable(run, planned.stage.trainable)
    factors = [rate / base * planned.stage.lr_factor for rate in run.base_rates]
    stream = _stream(run, planned)
    losses: list[float] = []
    planned_rates = rates(search.low, search.high, search.steps)
    ended = ""
    for number, rate in enumerate(planned_rates):
        for group, factor in zip(run.optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        losses.append(_loss_of_step(run, stream))
        if tested is not None:
            tested(number, rate, losses[-1])
        if ended := _end(run, losses):
            break
    done = tuple(planned_rates[: len(losses)])
    return RangeTest(done, tuple(losses), search.rule, search.axis, ended, run.signal)


def _end(run: Run, losses: list[float]) -> str:
    """Return why a test is over, or '' where it goes on."""
    if run.signal is not None:
        return "interrupted"
    if not math.isfinite(losses[-1]):
        return "not finite"
    return "exploded" if has_exploded(averages(losses)) else ""


def _stream(run: Run, planned: PlannedStage) -> Iterator[list[dict[str, Any]]]:
    """Yield windows of micro-batches as training would draw them, epoch after epoch."""
    loop = run.settings.loop
    for hear in run.events.on_run_start:
        hear(run)
    for hear in run.events.on_stage_start:
        hear(run, planned.stage)
    while True:
        for hear in run.events.on_epoch_start:
            hear(run)
        draws = admitted_draws(run, planned)
        batches = EpochBatches(run.batch_maker(), draws, run.moment.epoch, loop.batch_size)
        yield from windows(batches.iterate(0, loop.workers, run.engine.is_cuda), loop.accumulate)
        for hear in run.events.on_epoch_end:
            hear(run)
        run.moment.epoch += 1


def _loss_of_step(run: Run, stream: Iterator[list[dict[str, Any]]]) -> float:
    """Return the mean loss of the next step, before its update; NaN where the loss or a gradient is not finite.

    A step that was skipped because the scale of fp16 gradients was too large says nothing about the rate: the next
    window takes its place.
    """
    while True:
        run.gathered.begin_anew()
        before = run.moment.step
        try:
            train_step(run, next(stream))
        except Diverged:
            return math.nan
        loss = run.gathered.losses.means("train")["train/loss"]
        if not (math.isfinite(loss) and all(math.isfinite(float(norm)) for norm in run.gathered.norms)):
            return math.nan
        if run.moment.step > before:
            return loss
        if run.scaler is None:
            return math.nan


def is_due(draft: Draft, directory: RunDirectory) -> bool:
    """Return whether a run is to search before it trains: asked to, not done yet, and not begun to train."""
    if not draft.settings.lr_find or (directory.path / RECORD).exists():
        return False
    return not any(directory.checkpoints.glob("checkpoint-*"))


def take_found_rate(draft: Draft, directory: RunDirectory, report: Reporter) -> int | None:
    """Find a rate for a run and put it in force, in the draft and in the run directory.

    The record is written last: a run that is killed before it searches again when it resumes, one that has it does not.

    Returns:
        The signal that ended the search, or None.
    """
    # What was composed until now holds a model of its own, and components that refer to each other.
    gc.collect()
    search = Search()
    report(f"{SETTING}: testing {search.steps} learning rates from {search.low:g} to {search.high:g}")
    test = find_in(draft, search)
    if test.signal is not None:
        return test.signal
    record, before = record_of(draft, test), draft.parts["optimizer"].options["lr"]
    if test.suggestion is not None:
        set_rate(draft, test.suggestion, why(test))
        write_resolved(directory, draft.config)
        report(f"{SETTING}: {KEY} = {test.suggestion:g} instead of {before:g}: {why(test)}")
    else:
        report(f"{SETTING}: no rate found, {KEY} stays {before:g}: {test.reason}")
    for note in test.notes:
        report(f"{SETTING}: {note}")
    if (plot := plot_of(draft, test)) is not None:
        directory.write_bytes(PLOT, plot)
    directory.write_json(RECORD, record)
    return None


def set_rate(draft: Draft, rate: float, reason: str) -> None:
    """Put a rate in force in a draft: in its config, with its origin, and in the optimizer's options."""
    draft.config.add({KEY: Value(rate, SETTING, reason)})
    part = draft.parts["optimizer"]
    draft.parts["optimizer"] = replace(part, options={**part.options, "lr": rate})


def why(test: RangeTest) -> str:
    """Return what a suggestion follows from, in words."""
    place = {
        "steepest": "where the loss fell fastest",
        "valley": "the middle of the longest fall of the loss",
        "minimum": "a tenth of the rate at which the loss was lowest",
    }[test.rule]
    return f"{place} in a test of {len(test.rates)} rates from {test.rates[0]:g} to {test.rates[-1]:.3g}"


def record_of(draft: Draft, test: RangeTest) -> dict[str, Any]:
    """Return a test as JSON, with what it was a test of."""
    facts = {f"{kind}": draft.config[f"{kind}.use"] for kind in ("task", "optimizer", "loss")}
    loop = draft.settings.loop
    facts |= {"configured": draft.parts["optimizer"].options["lr"], "seed": draft.settings.seed}
    facts |= {"batch_size": loop.batch_size, "accumulate": loop.accumulate, "data": draft.splits.fingerprint}
    return test.document() | {"run": facts}


def plot_of(draft: Draft, test: RangeTest) -> bytes | None:
    """Return the plot of a test as the content of a PNG file, or None where no loss was finite."""
    from .reporting.contactsheet import png
    from .reporting.rangeplot import range_plot

    if not any(map(math.isfinite, test.losses)):
        return None
    title = f"Learning-rate range test: {draft.config['task.use']}, {draft.config['optimizer.use']}"
    return png(range_plot(test, title))


def check_folder(out: str | Path | None) -> None:
    """Raise UsageError if the folder that record and plot are to go to is not free, before anything is tested."""
    if out is not None and Path(out).exists():
        empty_folder(Path(out))


def save_found(draft: Draft, test: RangeTest, out: str | Path | None = None) -> list[Path]:
    """Write record and plot of a test and return their paths.

    Args:
        draft: of the run that was tested.
        test: the test.
        out: a folder that is new or empty; the next one below runs/lr-find if not given.

    Raises:
        UsageError: the folder holds something.
        ResourceError: the system refuses to write.
    """
    record = strict_json.dumps(strict_json.without_special_numbers(record_of(draft, test)), indent=1)
    written: list[Path] = []
    folder = empty_folder(Path(out)) if out is not None else _numbered()
    for name, content in ((RECORD, record), (PLOT, plot_of(draft, test))):
        if content is not None:
            try:
                (folder / name).write_bytes(content)
            except OSError as error:
                raise disk_error(error, folder / name) from error
            written.append(folder / name)
    return written


def _numbered() -> Path:
    runs = Path("runs")
    try:
        runs.mkdir(exist_ok=True)
    except OSError as error:
        raise disk_error(error, runs) from error
    return numbered_folder(runs / "lr-find")
