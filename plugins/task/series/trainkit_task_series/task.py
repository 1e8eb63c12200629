"""The task 'series': forecasts of many targets of many series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from trainkit import Technique
from trainkit.binding import bind_model
from trainkit.contracts import Answer, Batch, Finding, Inspection, Outputs, Sample, Splits
from trainkit.errors import DataError, UsageError
from trainkit.tables import counted, listed, read_tables

from .answers import answers_of, course_of
from .calendar import Calendar, usual_calendar
from .folds import Fold, Folding, folded
from .forecasters import Forecaster, ModelName
from .forecasts import Bounded, baselines_of, predictions_of, unbounded
from .grid import duration, stamp
from .inputs import Ends, ends_of
from .insight import insights_of
from .learned import Learned
from .panel import Panel
from .pictures import picture_of
from .reading import ROW, SAMPLE, Reading, Tables, usual_season
from .relative import usual_span
from .scaling import Method
from .schema import Schema
from .splitting import Part, check_windows, parts_of, windows_of
from .techniques import techniques_of_forecasts
from .tft import QUANTILES
from .times import TimeFormat
from .whole import whole_of
from .windows import SHARED, Windows

EMBEDDED = "embedded sample: three servers, July 2013"
Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
WINDOW = ("past_values", "past_observed_mask", "future_values", "future_observed_mask")
OF_SERIES = ("loc", "scale", "season_error", "series", "start", "start_time", *SHARED)


@dataclass(frozen=True)
class Read:
    """Hold what was read, and how it falls into parts."""

    panel: Panel
    schema: Schema
    season: int
    calendar: tuple[Calendar, ...]
    parts: tuple[Part, ...]
    windows: dict[str, Windows]
    findings: tuple[Finding, ...]
    fold: Fold | None

    def facts(self) -> dict[str, float | str]:
        """Return figures for people."""
        panel, targets = self.panel, len(self.schema.targets)
        return {
            "columns": self.schema.sentence(),
            "series": len(panel.names),
            "rows": len(panel),
            "step": duration(panel.grid.step),
            "first time": stamp(int(panel.times.min())),
            "last time": stamp(int(panel.times.max())),
            "training": ", ".join(f"{stamp(begin)} to {stamp(end)}" for begin, end in self.parts[0].spans),
            "validation": f"{stamp(self.parts[1].begin)} to {stamp(self.parts[1].end)}",
            "test from": stamp(self.parts[2].begin),
            **({"fold": str(self.fold)} if self.fold else {}),
            "segments": len(np.unique(panel.first)),
            "missing": f"{np.isnan(panel.values[:, :targets]).mean():.2%} of the targets",
            "season": counted(self.season, "step"),
            "calendar": ", ".join(self.calendar) or "none",
        }


class SeriesTask:
    """Forecast the next steps of series from their past, every target at once, with quantiles.

    Data is a CSV or Parquet file, or a folder of them: a column of times, columns of numbers, and, if several series
    share a file, a column that names them. What no option names is found, and told by `trainkit validate`.

    Args:
        time: column of times: ISO 8601, or numbers since 1970 of any unit.
        series: column that names the series; else each file is one.
        targets: columns to forecast; every column of numbers that changes, if none is named.
        observed: columns that are inputs, known over the past alone.
        known: columns that are inputs known over the horizon, too.
        statics: columns that do not change within a series, words or numbers; 'series' is the name of the series.
        time_format: how times are written, as strptime's '%d.%m.%Y %H:%M', where it is not ISO 8601.
        time_zone: zone of times that name none, as Europe/Amsterdam; they are taken to UTC.
        step: of the grid that rows are brought to, as 5m or 1h; the commonest one if not given; row: each row is one.
        max_gap: most missing steps that a window may cross.
        split: shares of training, validation and test, by time; the same moments for all series.
        cuts: when validation and test begin and, if a third one is given, when the test ends, in place of shares.
        purge: steps between training and validation, and before test, that are in no part.
        fold: of cross-validation, as 2/5: the second of five; all: validation belongs to training.
        folding: what a fold trains on: all rows before its validation, as many as the first fold, those on both sides.
        stride: steps from one training window to the next.
        eval_stride: the same for validation and test.
        scaling: of each series and column, learned from training rows: mean and deviation, median and quartiles, asinh
            of the latter for heavy tails, none.
        relative: targets whose windows are seen relative to their last value, as prices.
        calendar: features of the clock; those that suit the step if not given.
        season: steps of a season, for MASE and the seasonal baseline; a day if not given, if the context holds one.
        context: steps of the past that a forecast looks at.
        horizon: steps that are forecast.
        model: Temporal Fusion Transformer, or a linear one.
        hidden: features of a position of the TFT.
        heads: attention heads of the TFT.
        layers: LSTM layers of the TFT.
        dropout: share of features dropped in training by the TFT.
        quantiles: levels, ascending; none for a point forecast by a linear model.
        instance_norm: whether the TFT forecasts each window about its own level and spread.
        individual: whether each target has linear maps of its own.
        season_skip: whether the TFT sees the last season over the horizon, too, and may repeat it.

    Attributes:
        tables: what reads tables from files and folders; a task that stands on this one may clean and add columns.
        sample: the embedded data.
        embedded: what that is, in words.
        bounded: what forecasts in original units, and their quantiles, are brought to, as to percentages within 0..100.
    """

    adjustable: frozenset[str] = frozenset()

    def __init__(
        self,
        time: str | None = None,
        series: str | None = None,
        targets: tuple[str, ...] = (),
        observed: tuple[str, ...] = (),
        known: tuple[str, ...] = (),
        statics: tuple[str, ...] = (),
        time_format: str | None = None,
        time_zone: str | None = None,
        step: str | None = None,
        max_gap: NonNegativeInt = 12,
        split: tuple[Share, Share, Share] = (0.7, 0.15, 0.15),
        cuts: tuple[str, ...] = (),
        purge: NonNegativeInt = 0,
        fold: str | None = None,
        folding: Folding = "expanding",
        stride: PositiveInt = 1,
        eval_stride: PositiveInt = 1,
        scaling: Method = "standard",
        relative: tuple[str, ...] = (),
        calendar: tuple[Calendar, ...] | None = None,
        season: PositiveInt | None = None,
        context: PositiveInt = 96,
        horizon: PositiveInt = 24,
        model: ModelName = "tft",
        hidden: PositiveInt = 32,
        heads: PositiveInt = 4,
        layers: PositiveInt = 1,
        dropout: Dropout = 0.1,
        quantiles: tuple[float, ...] = QUANTILES,
        instance_norm: bool = False,
        individual: bool = False,
        season_skip: bool = True,
    ) -> None:
        if season is not None and season > context:
            raise UsageError(
                f"task.season = {season} is longer than task.context = {context}",
                why="the seasonal baseline repeats the last season of the past",
                do=f"--set task.context={season}, or a shorter season",
            )
        asked = Schema(time or "", series or "", targets, observed, known, statics)
        self.reading = Reading(asked, TimeFormat(time_format, time_zone), step, max_gap)
        self.split, self.cuts, self.purge = split, cuts, purge
        self.fold = Fold.of(fold, folding)
        self.strides = {"train": stride, "val": eval_stride, "test": eval_stride}
        self.scaling: Method = scaling
        self.relative = relative
        self.calendar, self.season = calendar, season
        self.context, self.horizon = context, horizon
        self.forecaster = Forecaster(
            model, context, horizon, quantiles, hidden, heads, layers, dropout, instance_norm, individual, season_skip
        )
        self.tables: Tables = read_tables
        self.sample, self.embedded = SAMPLE, EMBEDDED
        self.bounded: Bounded = unbounded
        self.found: Read | None = None
        self.learned: Learned | None = None

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Return the settings that this task proposes."""
        return {
            "loss.use": "quantile" if self.forecaster.quantiles else "mse",
            "metric": ["forecast-error"],
            "augmenter": [],
            "callback": ["sample-outputs"],
            "evaluate.monitor": "val/loss",
            "loop.batch_size": 32,
            "checkpoint.keep_best": 3,
        }

    @property
    def techniques(self) -> Mapping[str, Technique]:
        """Return what strategies may ask of this task, and why the rest cannot be had."""
        dropout = self.forecaster.dropout if self.forecaster.model == "tft" else None
        return techniques_of_forecasts(dropout)

    @property
    def predicts(self) -> frozenset[str]:
        """Return the names that `predict` makes."""
        more = {"forecast_quantiles"} if self.forecaster.quantiles else set()
        return frozenset({"forecast", "truth", "truth_mask", "last_value"} | more)

    @property
    def sample_keys(self) -> frozenset[str]:
        """Return the names in a sample, which are those in a batch."""
        layout = self._learned.layout if self.learned else None
        names = {*WINDOW, *OF_SERIES}
        if layout and layout.observed:
            names |= {"past_covariates"}
        if layout and layout.known:
            names |= {"past_time_features", "future_time_features"}
        if self.learned and self.learned.scaling.asinh:
            names |= {"asinh_mask"}
        if self.reading.step == ROW:
            names |= {"times"}
        return frozenset(names | (set(self._learned.statics([])) if self.learned else set()))

    @property
    def gives(self) -> frozenset[str]:
        """Return the names in a batch, in outputs and in predictions, as far as the data has them."""
        outputs = {"quantiles", "quantile_levels"} if self.forecaster.quantiles else {"point"}
        return self.sample_keys | outputs | self.predicts

    @property
    def _learned(self) -> Learned:
        if self.learned is None:
            raise UsageError("the task has learned nothing yet", do="call fit, or load a state")
        return self.learned

    def read(self, data: Path | None, seed: int) -> Splits:
        """Read and check the data, or the embedded sample; `seed` changes nothing.

        Raises:
            DataError: there is nothing to read, or it cannot be used.
        """
        del seed
        found = self._read(self.sample if data is None else Path(data))
        self._check(found)
        source = self.embedded if data is None else str(data)
        facts = found.facts()
        shown = f"{source}; {facts['columns']}; step {facts['step']}; season {facts['season']}"
        shown += f"; fold {self.fold}" if self.fold else ""
        remarks = [] if data is None else [f"{item.place}: {item.text}" for item in found.findings]
        parts = {name: part if len(part) else None for name, part in found.windows.items()}
        train = parts["train"]
        assert train is not None
        self.found = found
        return Splits(train, parts["val"], parts["test"], shown, found.panel.fingerprint(), remarks)

    def _read(self, data: Path) -> Read:
        panel, schema, findings = self.reading.read([data], self.tables)
        if unknown := sorted(set(self.relative) - set(schema.targets)):
            raise UsageError(
                f"task.relative names {listed(unknown)}", why=f"the targets are {', '.join(schema.targets)}"
            )
        parts = parts_of(panel, self.split, self.cuts, self.purge)
        if self.fold:
            parts = folded(panel, parts, self.fold, self.purge, self.horizon)
        targets = len(schema.targets)
        windows = {
            part.name: Windows(
                windows_of(panel, part, self.context, self.horizon, self.strides[part.name], targets),
                self.context,
                self.horizon,
                panel.names,
            )
            for part in parts
        }
        season = self.season or usual_season(panel.grid.step, self.context)
        calendar = usual_calendar(panel.grid.step) if self.calendar is None else self.calendar
        found = Read(panel, schema, season, calendar, parts, windows, tuple(findings), self.fold)
        return Read(**{**vars(found), "findings": (*findings, *self._remarks(found))})

    def _check(self, found: Read) -> None:
        """Raise DataError if there is no window to train on, or, in a fold, none to validate on."""
        for part in found.parts[: 2 if self.fold and self.fold.validates else 1]:
            check_windows(found.panel, part, len(found.windows[part.name]), self.context, self.horizon)

    def _remarks(self, found: Read) -> list[Finding]:
        """Return what windows and parts make notable."""
        panel, findings = found.panel, []
        length = self.context + self.horizon
        lengths = panel.last - panel.first + 1
        longest = np.zeros(len(panel.names), np.int64)
        np.maximum.at(longest, panel.series, lengths)
        if short := [panel.names[place] for place in np.flatnonzero(longest < length)]:
            text = f"no window in {len(short)} of {len(panel.names)} series: no {length} steps without a long gap"
            findings.append(Finding("short series", short[0], text, is_fault=False))
        findings += [
            Finding("empty part", ".", f"no window has its targets in the {part.name} part", is_fault=False)
            for part in found.parts[1 if found.fold is None or found.fold.validates else 2 :]
            if not len(found.windows[part.name])
        ]
        train = found.parts[0].rows(panel)
        unseen = sorted(set(panel.series.tolist()) - set(panel.series[train].tolist()))
        if unseen:
            text = f"no training row in {len(unseen)} of {len(panel.names)} series: scaled by all series together"
            findings.append(Finding("unseen series", panel.names[unseen[0]], text, is_fault=False))
        with_rows = np.where(train[:, None], panel.values, np.nan)
        for place, name in enumerate(found.schema.targets):
            column = with_rows[:, place]
            if not np.isfinite(column).any():
                text = f"target {name!r} has no number in the training part"
                findings.append(Finding("nothing measured", ".", text, is_fault=False))
        return findings

    def fold_options(self, fold: str) -> Mapping[str, Any]:
        """Return the options under which this task reads a fold; raise UsageError if it reads one already."""
        if self.fold is not None:
            raise UsageError(
                f"task.fold = {self.fold} is a fold already, and fold = {fold} is asked for",
                why="folds of the run set task.fold for each of its runs",
                do="leave task.fold out",
            )
        return {"fold": fold}

    def inspect(self, data: Path) -> Inspection:
        """Look at data and tell all that is wrong with it."""
        found = self._read(data)
        counts = {name: len(part) for name, part in found.windows.items() if len(part)}
        findings = list(found.findings)
        try:
            self._check(found)
        except DataError as error:
            findings.append(Finding("no window", ".", f"{error.what}: {error.why}"))
        return Inspection(str(data), "table of series", counts, tuple(findings), found.facts())

    def fit(self, train: Any) -> None:
        """Learn scales, seasons and words from the rows of training, and scale all windows by them."""
        found = self._found
        rows = found.parts[0].rows(found.panel)
        self.learned = Learned.from_rows(
            found.panel,
            found.schema,
            rows,
            found.season,
            found.calendar,
            self.scaling,
            self.relative,
            usual_span(self.context),
        )
        self._scale()
        if train.store is None:
            raise UsageError("these are not the windows that were read last", do="call read, then fit with its train")

    @property
    def _found(self) -> Read:
        if self.found is None:
            raise UsageError("no data was read", do="call read first")
        return self.found

    def _scale(self) -> None:
        found = self._found
        store = self._learned.store(found.panel)
        for windows in found.windows.values():
            windows.store = store

    def build_model(self) -> nn.Module:
        """Return a fresh model for what was learned."""
        return self.forecaster.build(self._learned)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return the batch of samples that were taken apart."""
        first = samples[0]
        batch: dict[str, Any] = {
            name: torch.stack([sample[name] for sample in samples])
            for name, value in first.items()
            if isinstance(value, Tensor)
        }
        return batch | {name: first[name] for name in SHARED}

    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return forecasts and truth in original units."""
        del model
        return predictions_of(batch, outputs, self.bounded)

    def baselines(self) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
        """Return persistence and, where a season has several steps, the seasonal naive forecast."""
        return baselines_of(self._learned.season, self.forecaster.quantiles)

    def inputs(self, paths: Sequence[Path]) -> Ends:
        """Read series whose next steps are asked; of a new one the past is scaled by itself."""
        learned = self._learned
        rows, findings = self.reading.rows(paths, self.tables, learned.schema, learned.step)
        ends = ends_of(rows, self.reading.grid(rows, learned.step), learned, self.context, self.horizon)
        ends.warnings = [f"{item.place}: {item.text}" for item in findings]
        return ends

    def whole(self, data: Path) -> Windows:
        """Return every window of some data; a series that is new is scaled by the past of its first window."""
        learned = self._learned
        panel, findings = self.reading.panel([data], self.tables, learned.schema, learned.step)
        return whole_of(panel, learned, self.context, self.horizon, self.strides["test"], findings)

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> list[Answer]:
        """Return for each sample the next steps with their quantiles, as tables and plots."""
        return self.answered(batch, bind_model(model)({**batch, "output_attentions": True}), samples)

    def answered(self, batch: Batch, outputs: Outputs, samples: Sequence[Sample]) -> list[Answer]:
        """Return the answers that a model's outputs hold; with attentions, their plots are among them."""
        insights = insights_of(outputs, self.context, self._learned, self.forecaster.season_skip)
        levels = [float(f"{level:.6g}") for level in self.forecaster.quantiles]
        return answers_of(batch, predictions_of(batch, outputs, self.bounded), levels, samples, self._learned, insights)

    def picture(self, sample: Sample) -> Any:
        """Return a plot of a sample's past and truth, [H, W, 3] of bytes."""
        return picture_of(course_of(sample, self._learned))

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON."""
        return self._learned.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; windows that were read are scaled by it."""
        self.learned = Learned.of(state)
        if self.found is not None:
            self._scale()
