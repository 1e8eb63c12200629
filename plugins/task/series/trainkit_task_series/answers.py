"""Answers: the next steps of a series as CSV, Parquet, JSON, and as plots."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from trainkit.contracts import Answer, Batch, Sample
from trainkit.later import LateFiles, LatePanels
from trainkit.reporting.contactsheet import png, sheet

from .forecasts import unscaled
from .grid import stamp
from .insight import Insight
from .learned import Learned
from .page import page_of
from .pictures import Course, is_drawn, panels_of


def answers_of(
    batch: Batch,
    predictions: Mapping[str, Tensor],
    levels: Sequence[float],
    samples: Sequence[Sample],
    learned: Learned,
    insights: Sequence[Insight] = (),
) -> list[Answer]:
    """Return an answer for each sample.

    Args:
        batch: of the samples.
        predictions: in original units.
        levels: of the quantiles.
        samples: with a name, if they are ends of new series.
        learned: what names and times mean.
        insights: what counted for each sample, where the model tells.
    """
    past = masked(unscaled(batch["past_values"], batch), batch["past_observed_mask"])
    truth = masked(predictions["truth"], predictions["truth_mask"])
    forecast = predictions["forecast"].double().cpu().numpy()
    quantiles = predictions["forecast_quantiles"].double().cpu().numpy() if levels else None
    answers = []
    for place, sample in enumerate(samples):
        course = Course(
            name_of(sample, learned),
            learned.schema.targets,
            times_of(sample, past.shape[1] + truth.shape[1], past.shape[1], learned.step),
            past[place],
            truth[place],
            forecast[place],
            None if quantiles is None else quantiles[place],
            levels,
        )
        insight = insights[place] if insights else None
        answers.append(_answer(course, insight, bool(sample.get("scaled_by_itself", False))))
    return answers


def masked(values: Tensor, mask: Tensor) -> np.ndarray:
    """Return values in float64, NaN where nothing was measured."""
    filled = torch.where(mask, values.double(), torch.full_like(values, torch.nan, dtype=torch.float64))
    array: np.ndarray = filled.cpu().numpy()
    return array


def name_of(sample: Sample, learned: Learned) -> str:
    """Return the name of a window: of its series, if it is the end of one, and else with its time."""
    if "name" in sample:
        return str(sample["name"])
    return f"{learned.scaling.names[int(sample['series'])]} at {stamp(int(sample['start_time']))}"


def course_of(sample: Sample, learned: Learned) -> Course:
    """Return past and truth of a sample."""
    batch = {name: value[None] for name, value in sample.items() if isinstance(value, Tensor)}
    past = masked(unscaled(batch["past_values"], batch), batch["past_observed_mask"])[0]
    truth = masked(unscaled(batch["future_values"], batch), batch["future_observed_mask"])[0]
    times = times_of(sample, len(past) + len(truth), len(past), learned.step)
    return Course(name_of(sample, learned), learned.schema.targets, times, past, truth)


def times_of(sample: Sample, length: int, context: int, step: int) -> np.ndarray:
    """Return the times of a window's steps [C + H]: its own where they are not regular."""
    if "times" in sample:
        own: np.ndarray = sample["times"].cpu().numpy()
        return own
    return int(sample["start_time"]) + step * np.arange(-context, length - context)


def _answer(course: Course, insight: Insight | None, scaled_by_itself: bool) -> Answer:
    assert course.forecast is not None
    data: dict[str, Any] = {
        "series": course.name,
        "start": stamp(course.start),
        "times": [stamp(int(time)) for time in course.times[len(course.past) :]],
        "targets": {
            name: {"forecast": numbers(course.forecast[:, place])} | _quantiles(course, place)
            for place, name in enumerate(course.targets)
        },
    }
    if scaled_by_itself:
        data["note"] = "training did not know this series: it is scaled by its own past"
    if insight is not None:
        data["variable_weights"] = {part: dict(weights) for part, weights in insight.weights.items()}
    insights = LatePanels(lambda: insight.panels() if insight is not None and insight.weights else [])
    panels = LatePanels(lambda: [*panels_of(course), *insights])
    made: dict[str, Callable[[], str | bytes]] = {
        ".csv": lambda: frame_of(course).write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.f"),
        ".json": lambda: json.dumps(data, indent=1, allow_nan=False) + "\n",
        ".parquet": partial(_parquet, course),
        ".html": lambda: page_of(course, insights),
    }
    if is_drawn(course):
        made[".png"] = lambda: png(sheet([(course.name, panels)]))
    return Answer(course.name, LateFiles(made), data, panels)


def _parquet(course: Course) -> bytes:
    content = io.BytesIO()
    frame_of(course).write_parquet(content)
    return content.getvalue()


def _quantiles(course: Course, target: int) -> dict[str, Any]:
    if course.quantiles is None:
        return {}
    levels = enumerate(course.levels)
    return {"quantiles": {f"{level:g}": numbers(course.quantiles[:, target, place]) for place, level in levels}}


def frame_of(course: Course) -> pl.DataFrame:
    """Return a forecast as a table: a row for each time and target, a column for each level.

    It names its series, so that the tables of several can be put together. Forecasts are float32, as they are computed.
    """
    assert course.forecast is not None
    horizon, targets = course.forecast.shape
    times = course.times[len(course.past) :]
    columns: dict[str, Any] = {
        "series": [course.name] * horizon * targets,
        "time": pl.Series(np.repeat(times, targets)).cast(pl.Datetime("us")),
        "target": list(course.targets) * horizon,
        "forecast": course.forecast.reshape(-1).astype(np.float32),
    }
    if course.quantiles is not None:
        by_level = course.quantiles.reshape(-1, len(course.levels)).astype(np.float32)
        columns |= {f"q{level:g}": by_level[:, place] for place, level in enumerate(course.levels)}
    return pl.DataFrame(columns)


def numbers(values: np.ndarray) -> list[float]:
    """Return values as JSON has them: the shortest digits that are the same float32."""
    return [float(str(value)) for value in values.astype(np.float32)]
