from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from trainkit.api import start
from trainkit.rundir import rows
from trainkit.testing import CallbackConformance
from trainkit.testing.component import same
from trainkit.testing.tiny import tiny_request
from trainkit_callback_system_monitor.procfs import Busy, Process, busy, family, memory, process, read_processes
from trainkit_callback_system_monitor.system_monitor import Machine, SystemMonitor

KIB, MIB, GIB = 2**10, 2**20, 2**30
MEMINFO = "MemTotal:       8388608 kB\nMemFree:  1 kB\nMemAvailable:   6291456 kB\n"
STAT = "cpu  100 20 30 800 50 5 5 10 7 7\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"
NO_LIBRARY = "nvidia-ml-py does not seem to be installed"
HAS_PROC = os.path.exists("/proc/self/stat")
needs_proc = pytest.mark.skipif(not HAS_PROC, reason="this system has no /proc")


class TestSystemMonitor(CallbackConformance):
    component = "system-monitor"


def of_process(pid, parent, ticks=(0, 0), pages=0, name="python"):
    """Return a line of /proc/PID/stat, with zeros for what is not read."""
    words = ["S", parent, *[0] * 9, *ticks, *[0] * 8, pages, *[0] * 10]
    return f"{pid} ({name}) {' '.join(map(str, words))}\n"


def machine(root, files):
    """Write the files of a machine."""
    for name, text in {"proc/stat": STAT, "proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_time_at_work_is_all_but_idle_and_waiting():
    assert busy(STAT) == Busy(work=170, all=1020)


def test_a_process_may_have_any_name():
    line = of_process(7, 3, (40, 2), 100, name="a ) b (c")
    assert process(line) == Process(parent=3, ticks=42, pages=100)


def test_family_is_a_process_and_all_below_it():
    made = {pid: Process(parent, 0, 0) for pid, parent in {1: 0, 5: 1, 9: 5, 2: 9, 6: 1, 7: 6}.items()}
    assert set(family(made, 5)) == {5, 9, 2}
    assert family(made, 77) == {}


def test_memory_of_the_machine(tmp_path):
    assert memory(machine(tmp_path, {})) == (2 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("group", "folder"), [("0::/", ""), ("0::/user/job", "user/job/"), ("0::/path/of/the/host", "")]
)
def test_memory_of_a_container_of_today(tmp_path, group, folder):
    base = f"sys/fs/cgroup/{folder}"
    files = {
        "proc/self/cgroup": f"{group}\n",
        f"{base}memory.max": f"{GIB}\n",
        f"{base}memory.current": f"{300 * MIB}\n",
        f"{base}memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
    }
    assert memory(machine(tmp_path, files)) == (200 * MIB, GIB)
    (tmp_path / f"{base}memory.max").write_text("max\n")
    assert memory(tmp_path) == (2 * GIB, 8 * GIB)


def test_memory_of_a_container_of_the_first_kind(tmp_path):
    base = "sys/fs/cgroup/memory/job/"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n",
        f"{base}memory.limit_in_bytes": f"{GIB}\n",
        f"{base}memory.usage_in_bytes": f"{300 * MIB}\n",
        f"{base}memory.stat": f"inactive_file 7\ntotal_inactive_file {50 * MIB}\n",
    }
    assert memory(machine(tmp_path, files)) == (250 * MIB, GIB)
    (tmp_path / base / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory(tmp_path) == (2 * GIB, 8 * GIB)


def test_shares_are_those_between_two_readings(tmp_path):
    now, me = [100.0], os.getpid()
    own = f"proc/{me}/stat"
    machine(tmp_path, {own: of_process(me, 1, (500, 500), 1024), "proc/3/stat": of_process(3, 1, (9, 9), 999)})
    read = Machine(tmp_path, lambda: now[0])
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    first = read.values()
    assert first == {
        "system/memory_percent": 25.0,
        "system/process_memory_gib": pytest.approx(1024 * page / GIB),
    }
    now[0] += 4.0
    files = {
        "proc/stat": STAT.replace("cpu  100", "cpu  160").replace("800", "940"),
        own: of_process(me, 1, (500 + tick, 500 + tick), 1024),
        "proc/8/stat": of_process(8, me, (tick, tick), 512),
    }
    machine(tmp_path, files)
    assert read.values() == {
        "system/memory_percent": 25.0,
        "system/process_memory_gib": pytest.approx(1536 * page / GIB),
        "system/cpu_percent": pytest.approx(100 * 60 / 200),
        "system/process_cpu_percent": pytest.approx(100.0),
    }


@needs_proc
def test_this_machine_tells_its_processes():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        read = Machine()
        read.values()
        began = time.process_time()
        while time.process_time() - began < 0.3:
            pass
        values = read.values()
        assert child.pid in family(read_processes(read.root / "proc"), os.getpid())
    finally:
        child.kill()
        child.wait()
    assert 0 < values["system/cpu_percent"] <= 100
    assert values["system/process_cpu_percent"] > 5
    assert 0 < values["system/memory_percent"] < 100
    assert 0.05 < values["system/process_memory_gib"] < 50


class FakeMachine:
    """Answer with a count of the readings."""

    def __init__(self):
        self.now, self.readings = 0.0, 0

    def clock(self):
        return self.now

    def values(self):
        self.readings += 1
        return {"system/cpu_percent": float(self.readings)}


def fake_run(device="cpu"):
    run = SimpleNamespace(
        metrics_file=None,
        heard=[],
        moment=SimpleNamespace(step=1, epoch=0),
        engine=SimpleNamespace(is_cuda=device == "cuda", device=torch.device(device)),
    )
    run.events = SimpleNamespace(on_log=[lambda run, row: run.heard.append(dict(row))])
    return run


def monitored(every_seconds, *times, row=None):
    callback, run = SystemMonitor(every_seconds=every_seconds), fake_run()
    callback.machine = FakeMachine()
    callback.on_run_start()
    for now in times:
        callback.machine.now = now
        callback.on_log(run, row or {"train/loss": 1.0})
    return [row["system/cpu_percent"] for row in run.heard]


def test_a_reading_beside_a_row_of_training_if_the_last_one_is_old_enough():
    assert monitored(10, 1, 5, 11, 12, 21, 40) == [2, 3, 4, 5]
    assert monitored(0, 1, 1, 1) == [2, 3, 4]
    assert monitored(0, 1, 2, row={"val/loss": 1.0}) == []


def test_a_system_that_does_not_tell_is_named_once(tmp_path, caplog):
    callback, run = SystemMonitor(every_seconds=0), fake_run()
    callback.machine = Machine(tmp_path)
    with caplog.at_level(logging.WARNING):
        callback.on_run_start()
        callback.on_log(run, {"train/loss": 1.0})
        callback.on_log(run, {"train/loss": 1.0})
    assert run.heard == []
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("system-monitor: processor and memory cannot be read and will not be logged")


def test_the_gpu_tells_its_memory_and_with_the_drivers_library_its_load(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * GIB)
    memory_values = {
        "system/gpu_memory_percent": 25.0,
        "system/gpu_memory_gib": 1.0,
        "system/gpu_peak_memory_gib": 3.0,
    }

    def missing(device):
        raise ModuleNotFoundError(NO_LIBRARY)

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    callback, run = SystemMonitor(every_seconds=0), fake_run("cuda")
    callback.machine = FakeMachine()
    with caplog.at_level(logging.WARNING):
        callback.on_log(run, {"train/loss": 1.0})
        callback.on_log(run, {"train/loss": 1.0})
    assert run.heard == [{"system/cpu_percent": 1.0, **memory_values}, {"system/cpu_percent": 2.0, **memory_values}]
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"system-monitor: the GPU's load cannot be read and will not be logged: {NO_LIBRARY}"
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87)
    monkeypatch.setattr(torch.cuda, "temperature", lambda device: 61)
    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 412_500)
    other, run = SystemMonitor(every_seconds=0), fake_run("cuda")
    other.machine = FakeMachine()
    other.on_log(run, {"train/loss": 1.0})
    load = {"system/gpu_percent": 87.0, "system/gpu_celsius": 61.0, "system/gpu_watts": 412.5}
    assert run.heard == [{"system/cpu_percent": 1.0, **memory_values, **load}]


@needs_proc
def test_a_run_is_watched_and_not_changed(tmp_path):
    settings = {"loop.log_every_steps": 2, "loop.max_steps": 6}
    start(tiny_request({"out": str(tmp_path / "plain"), **settings}))
    start(tiny_request({"out": str(tmp_path / "run"), **settings}, callbacks=[SystemMonitor(every_seconds=0)]))
    found = [row for row in rows(tmp_path / "run" / "metrics.jsonl") if "system/memory_percent" in row]
    assert [row["step"] for row in found] == [2, 4, 6]
    assert all("system/process_memory_gib" in row for row in found)
    one, other = (load_file(tmp_path / run / "checkpoints/checkpoint-6/model.safetensors") for run in ("plain", "run"))
    assert same(one, other)
