"""The task on its embedded sample: what it promises, in each of its models."""

from __future__ import annotations

import polars as pl
from trainkit.testing import TaskConformance
from trainkit_task_series.reading import SAMPLE

SMALL = {"context": 48, "horizon": 12, "hidden": 16, "heads": 2, "dropout": 0.0}


class TestSeriesConformance(TaskConformance):
    component = "series"
    options = SMALL
    # Columns, splits, windows and a model are set here; flat names spare the user a level of nesting.
    most_options = 28

    def written(self, folder):
        folder.mkdir()
        pl.read_csv(SAMPLE, infer_schema=False).head(400).write_csv(folder / "servers.csv")
        return folder

    def input_paths(self, data):
        return [data / "servers.csv"]


class TestSeriesLinearConformance(TestSeriesConformance):
    options = {**SMALL, "model": "dlinear", "quantiles": (), "statics": ("series",)}
    overfit_lr = 1e-2
