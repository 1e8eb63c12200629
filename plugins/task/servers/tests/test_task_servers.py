"""The task on its embedded sample, and on tables as a monitoring system writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from trainkit.errors import UsageError
from trainkit.testing import TaskConformance
from trainkit_task_servers.task import ServersTask, bounded

BITBRAINS = Path(__file__).parent / "data" / "bitbrains"
SMALL = {
    "context": 48,
    "horizon": 12,
    "hidden": 16,
    "heads": 2,
    "dropout": 0.0,
    "stride": 1,
    "eval_stride": 12,
}


class TestServersConformance(TaskConformance):
    component = "servers"
    options = SMALL
    overfit_lr = 1e-2
    overfit_steps = 60

    def written(self, folder):
        folder.mkdir()
        lines = ServersTask().sample.read_text().splitlines()[:400]
        (folder / "servers.csv").write_text("\n".join(lines) + "\n")
        return folder

    def input_paths(self, data):
        return [data / "servers.csv"]


@pytest.fixture
def task():
    return ServersTask({"use": "series", **SMALL})


def rows_of(name="89"):
    table = pl.read_csv(BITBRAINS / f"{name}.csv", separator=";", infer_schema=False)
    table.columns = [column.strip() for column in table.columns]
    return table.select(pl.all().str.strip_chars().cast(pl.Float64))


def test_metrics_are_what_their_columns_say(task):
    splits = task.read(BITBRAINS, 0)
    assert "targets cpu, memory, disk, network" in splits.source
    panel, raw = task.found.panel, rows_of()
    first = np.flatnonzero(panel.series == panel.names.index("89"))[0]
    memory = 100 * raw["Memory usage [KB]"][0] / raw["Memory capacity provisioned [KB]"][0]
    disk = raw["Disk read throughput [KB/s]"][0] + raw["Disk write throughput [KB/s]"][0]
    network = raw["Network received throughput [KB/s]"][0] + raw["Network transmitted throughput [KB/s]"][0]
    assert panel.values[first] == pytest.approx([raw["CPU usage [%]"][0], memory, disk, network])


def test_targets_may_be_parts_and_plain_columns():
    task = ServersTask({"use": "series", **SMALL, "targets": ("disk_write", "CPU cores", "cpu")})
    task.read(BITBRAINS, 0)
    assert task.found.schema.targets == ("disk_write", "CPU cores", "cpu")
    with pytest.raises(Exception, match="there is no column 'cpuu'"):
        ServersTask({"use": "series", **SMALL, "targets": ("cpuu",)}).read(BITBRAINS, 0)


def test_columns_that_are_no_metrics_stay(task, tmp_path):
    rows = range(400)
    table = {"time": [f"2026-01-{1 + i // 288:02}T{i % 288 // 12:02}:{i % 12 * 5:02}" for i in rows]}
    table |= {"cpu_percent": [str(20 + i % 7) for i in rows], "queue": [str(i % 5) for i in rows]}
    pl.DataFrame(table).write_csv(tmp_path / "a.csv")
    task.read(tmp_path, 0)
    assert task.found.schema.targets == ("cpu", "queue")


def test_what_is_odd_is_told(task, tmp_path):
    lines = (BITBRAINS / "89.csv").read_text().splitlines()[:400]
    cells = lines[5].split(";\t")
    cells[4], cells[6] = "103.5", "broken"
    lines[5] = ";\t".join(cells)
    (tmp_path / "89.csv").write_text("\n".join(lines) + "\n")
    told = {finding.rule: finding for finding in task.inspect(tmp_path).findings}
    assert told["above 100 %"].place == "89.csv:6"
    assert "1 of 399 rows, 103.5 at most" in told["above 100 %"].text
    assert told["no number"].place == "89.csv:6"
    assert "memory of Memory usage [KB] and Memory capacity provisioned [KB]" in told["metrics"].text
    assert "unit of time" in told


def test_forecasts_are_metrics():
    batch = {"target_names": ("cpu", "disk", "queue")}
    values = torch.tensor([[[-3.0, -3.0, -3.0], [120.0, 120.0, 120.0]]])
    assert bounded(values, batch).tolist() == [[[0.0, 0.0, -3.0], [100.0, 120.0, 120.0]]]
    assert bounded(values[..., None].expand(1, 2, 3, 4), batch)[0, 1, 0].tolist() == [100.0] * 4
    assert ServersTask({"use": "series"}, within_bounds=False).bounded(values, batch) is values


def test_it_stands_on_any_task_that_has_tables():
    with pytest.raises(UsageError, match="contxt"):
        ServersTask({"use": "series", "contxt": 3})
    assert ServersTask().context == 288
