"""Columns as monitoring systems write them, and the metrics they make."""

from __future__ import annotations

import pytest
from trainkit_task_servers.metrics import found, known, plain

BITBRAINS = (
    "Timestamp [ms]",
    "CPU cores",
    "CPU capacity provisioned [MHZ]",
    "CPU usage [MHZ]",
    "CPU usage [%]",
    "Memory capacity provisioned [KB]",
    "Memory usage [KB]",
    "Disk read throughput [KB/s]",
    "Disk write throughput [KB/s]",
    "Network received throughput [KB/s]",
    "Network transmitted throughput [KB/s]",
)


def columns_of(names, asked=()):
    return {metric: taken for metric, (_, taken) in found(names, asked).items()}


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("CPU usage [%]", "cpu usage percent"),
        ("CPUUtilization", "cpuutilization"),
        ("NetworkIn", "network in"),
        ("disk_write_bytes", "disk write bytes"),
    ],
)
def test_names_are_compared_as_words(column, words):
    assert plain(column) == words


def test_bitbrains_gives_the_four_metrics():
    assert columns_of(BITBRAINS) == {
        "cpu": ("CPU usage [%]",),
        "memory": ("Memory usage [KB]", "Memory capacity provisioned [KB]"),
        "disk": ("Disk read throughput [KB/s]", "Disk write throughput [KB/s]"),
        "network": ("Network received throughput [KB/s]", "Network transmitted throughput [KB/s]"),
    }
    assert known(BITBRAINS) == set(BITBRAINS) - {"Timestamp [ms]"}


def test_parts_are_made_if_they_are_asked_for():
    assert columns_of(BITBRAINS, {"disk_write"})["disk_write"] == ("Disk write throughput [KB/s]",)
    assert "network_in" not in columns_of(BITBRAINS)


def test_cpu_is_computed_where_no_column_says_percent():
    without = tuple(name for name in BITBRAINS if name != "CPU usage [%]")
    assert columns_of(without)["cpu"] == ("CPU usage [MHZ]", "CPU capacity provisioned [MHZ]")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("cpu_percent", "mem_percent", "load1"), {"cpu", "memory", "load"}),
        (("cpu", "memory", "disk", "network"), {"cpu", "memory", "disk", "network"}),
        (("NetworkIn", "NetworkOut", "DiskReadBytes", "DiskWriteBytes"), {"disk", "network"}),
        (("net_rx_bytes", "net_tx_bytes"), {"network"}),
        (("NetworkIn",), set()),
        (("requests", "latency_ms", "cpus"), set()),
    ],
)
def test_usual_spellings(columns, expected):
    assert set(columns_of(columns)) == expected
