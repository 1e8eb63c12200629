"""Freed memory stays with the process where it is asked for, and nothing happens where it cannot."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from trainkit import heap
from trainkit.testing.tiny import tiny_run

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

# Blocks of 8 MiB are written and freed again and again: each is 2048 pages.
FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from trainkit.heap import keep_heap
    assert keep_heap() and keep_heap()
def work():
    for _ in range(20):
        blocks = [np.ones(2**20) for _ in range(2)]
        del blocks
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@glibc
def test_pages_are_faulted_in_once() -> None:
    faults = {}
    for how in ("kept", "as it is"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    # By default glibc maps at least the larger blocks anew, or cuts the heap when they are freed.
    assert faults["kept"] < 500
    assert faults["as it is"] > 10 * faults["kept"]


@pytest.mark.parametrize(("system", "library"), [("darwin", ""), ("win32", ""), ("linux", ""), ("linux", "musl")])
def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, system: str, library: str) -> None:
    def never(name: object) -> None:
        raise AssertionError(f"{name} was opened")

    monkeypatch.setattr(heap.sys, "platform", system)
    monkeypatch.setattr(heap.platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setattr(heap.ctypes, "CDLL", never)
    assert heap.keep_heap() is False


def test_a_library_without_the_function_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "linux")
    monkeypatch.setattr(heap.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert heap.keep_heap() is False


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_asks_for_it_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("trainkit.engine.keep_heap", lambda: asked.append(True))
    tiny_run({} if kept else {"keep_heap": False})
    assert bool(asked) is kept
