"""A learning rate that was found: its record and plot, and how a run takes it."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.baserate import KEY
from trainkit.config import Value
from trainkit.documents import write_resolved
from trainkit.reporting.answerfiles import empty_folder, numbered_folder
from trainkit.settings import check_settings
from trainkit.storage import strict_json
from trainkit.storage.filesystem import disk_error

from .finder import Search, find_in

if TYPE_CHECKING:
    from trainkit.draft import Draft
    from trainkit.request import Reporter
    from trainkit.rundir import RunDirectory

    from .rangetest import RangeTest

SETTING = "lr_find"
RECORD, PLOT = "lr_find.json", "lr_find.png"


def take_found_rate(draft: Draft, directory: RunDirectory, report: Reporter) -> int | None:
    """Find a rate for a run and put it in force, in the draft and in the run directory.

    The settings are written last, with `lr_find` switched off: a run that is killed before searches again when it
    resumes; one that has them, or that is started from them, does not.

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
    if (plot := plot_of(draft, test)) is not None:
        directory.write_bytes(PLOT, plot)
    directory.write_json(RECORD, record_of(draft, test))
    before = draft.parts["optimizer"].options["lr"]
    if test.suggestion is not None:
        outcome = f"{KEY} = {test.suggestion:g} instead of {before:g}: {why(test)}"
        set_rate(draft, test.suggestion, why(test))
    else:
        outcome = f"no rate found, {KEY} stays {before:g}: {test.reason}"
    for line in (outcome, *test.notes):
        report(f"{SETTING}: {line}")
    draft.config.add({SETTING: Value(False, SETTING, f"done: {outcome}")})
    draft.settings = check_settings(draft.config)
    write_resolved(directory, draft.config)
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
    facts = {kind: draft.config[f"{kind}.use"] for kind in ("task", "optimizer", "loss")}
    loop = draft.settings.loop
    facts |= {"configured": draft.parts["optimizer"].options["lr"], "seed": draft.settings.seed}
    facts |= {"batch_size": loop.batch_size, "accumulate": loop.accumulate, "data": draft.splits.fingerprint}
    return test.document() | {"run": facts}


def plot_of(draft: Draft, test: RangeTest) -> bytes | None:
    """Return the plot of a test as the content of a PNG file, or None where no loss was finite."""
    from trainkit.reporting.contactsheet import png
    from trainkit.reporting.rangeplot import range_plot

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
