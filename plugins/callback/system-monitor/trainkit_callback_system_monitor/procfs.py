"""What Linux tells in /proc and /sys/fs/cgroup about the machine and the processes of a run: pure readings of files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Busy(NamedTuple):
    """Hold what all cores did since the machine started, in ticks: time at work, and all time."""

    work: int
    all: int


class Process(NamedTuple):
    """Hold a process: its parent, its processor time in ticks, its memory in pages."""

    parent: int
    ticks: int
    pages: int


def busy(stat: str) -> Busy:
    """Return what /proc/stat tells of all cores; waiting for a disk is no work."""
    # The two fields after the first eight, time of guests, are part of the first two.
    ticks = [int(word) for word in stat.partition("\n")[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return Busy(sum(ticks) - idle - waiting, sum(ticks))


def machine_memory(meminfo: str) -> tuple[int, int]:
    """Return the memory in use and all of it, in bytes, of /proc/meminfo; caches that can be dropped are not in use."""
    values = dict(line.split(":") for line in meminfo.splitlines() if ":" in line)
    total, available = (1024 * int(values[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    return total - available, total


def process(stat: str) -> Process:
    """Return what /proc/PID/stat tells of a process; its name may hold blanks and brackets."""
    fields = stat.rpartition(")")[2].split()
    return Process(parent=int(fields[1]), ticks=int(fields[11]) + int(fields[12]), pages=int(fields[21]))


def family(processes: dict[int, Process], root: int) -> dict[int, Process]:
    """Return a process and all below it."""
    found = {root: processes[root]} if root in processes else {}
    grown = True
    while grown:
        below = {pid: one for pid, one in processes.items() if one.parent in found and pid not in found}
        found |= below
        grown = bool(below)
    return found


def read_processes(proc: Path) -> dict[int, Process]:
    """Return all processes by number; one that ends meanwhile is none."""
    found = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = process((folder / "stat").read_text())
            except (OSError, IndexError):
                continue
    return found


def memory(root: Path) -> tuple[int, int]:
    """Return the memory in use and all there is, in bytes: of the container where it has less than the machine.

    Args:
        root: where proc and sys lie.
    """
    used, total = machine_memory((root / "proc/meminfo").read_text())
    for folder, limit_name, used_name, cache_key in _groups(root):
        try:
            limit = int((folder / limit_name).read_text())
            held = int((folder / used_name).read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            # No such file, or the limit is "max".
            continue
        if limit < total:
            used, total = held - int(facts.get(cache_key, 0)), limit
    return used, total


def _groups(root: Path) -> list[tuple[Path, str, str, str]]:
    """Return the control groups that may limit this process: folder, names of limit and use, key of what is cached."""
    found = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container the path is often that of the host, and the group lies at the top.
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            found += [(folder, *names) for folder in dict.fromkeys((base, base / path.lstrip("/")))]
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = base / "memory"
            found += [(folder, *names) for folder in dict.fromkeys((top, top / path.lstrip("/")))]
    return found
