"""Plugins that take their process with them: only the child process dies of them."""

from __future__ import annotations

import time

import pytest
from trainkit.loader import health
from trainkit.loader.probe import Check, conformance, probe

HOOK = "from trainkit import hookimpl\n\n@hookimpl\ndef trainkit_loss():\n    return dict\n"

ENDS = {
    "leaves at once": ("import os\nos._exit(0)", "import: it ended the process with exit code 0"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "import: it crashed the process (SIGSEGV)"),
    "exits": ("raise SystemExit(0)", "import: SystemExit: 0 (fake_bad/__init__.py, line 1)"),
    "interrupts": ("raise KeyboardInterrupt", "import: KeyboardInterrupt (fake_bad/__init__.py, line 1)"),
    "misspells": (
        HOOK.replace("_loss", "_lose"),
        "validate: there is no hook 'trainkit_lose'; did you mean 'trainkit_loss'?",
    ),
}


@pytest.fixture
def bad(site, monkeypatch):
    """Return a function that probes a plugin with this code, in a child process that finds it too."""
    monkeypatch.setenv("PYTHONPATH", str(site.folder))

    def probed(code, **limit):
        site.install("fake-bad", name="bad", code=code)
        return probe(site.entries()[0], **limit)

    return probed


@pytest.mark.parametrize(("code", "fault"), ENDS.values(), ids=ENDS)
def test_how_a_plugin_ends_its_process_is_told_and_remembered(bad, code, fault):
    result = bad(code)
    assert result.fault == fault
    assert [entry.reason for entry in health.with_failures([result.entry])] == [fault]


def test_a_plugin_that_hangs_is_killed_with_what_it_started(bad, tmp_path):
    mark = tmp_path / "still-alive"
    late = f"import time, pathlib; time.sleep(6); pathlib.Path({str(mark)!r}).touch()"
    code = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {late!r}])\ntime.sleep(600)"
    result = bad(code, limit_seconds=3)
    assert result.fault == "import: it did not end within 3 s"
    assert 3 <= result.seconds < 30
    time.sleep(4)
    assert not mark.exists()


def test_a_healthy_plugin_is_forgotten_by_the_memory_of_failures(bad):
    result = bad(HOOK)
    assert (result.fault, result.traceback, result.printed) == ("", "", 0)
    assert result.seconds > 0
    health.remember(result.entry, "once")
    assert probe(result.entry).fault == ""
    assert [entry.status for entry in health.with_failures([result.entry])] == ["ok"]


def test_a_megabyte_of_output_is_counted(bad):
    result = bad("import os\nos.write(1, b'x' * 1_000_000)\nprint('\\x1b[2J')\n" + HOOK)
    assert (result.fault, result.printed) == ("", 1_000_005)


def test_the_traceback_is_kept(bad):
    result = bad("def deep():\n    raise ValueError('far down')\ndeep()")
    assert "in deep" in result.traceback
    assert result.traceback.rstrip().endswith("ValueError: far down")


def test_a_target_without_readable_options_is_broken(bad):
    code = (
        "class Shy(type):\n    @property\n    def __signature__(cls):\n        raise RuntimeError('not telling')\n"
        "class Found(metaclass=Shy): ...\n" + HOOK.replace("dict", "Found")
    )
    assert bad(code).fault == "validate: RuntimeError: not telling (fake_bad/__init__.py, line 4)"


def test_what_metadata_forbids_is_not_tried(site):
    site.install("fake-new", name="new", requires="trainkit-core>=99", code="raise SystemExit")
    assert probe(site.entries()[0]).fault == "incompatible: it needs trainkit-core>=99, and 0.1.0 is installed"


def test_checks_that_do_not_end_are_one_failed_check(bad):
    # It sleeps only when something is made of it, which loading it does not do.
    code = HOOK.replace("return dict", "import time\n    return lambda: time.sleep(600)")
    entry = bad(code).entry
    (check,) = conformance(entry, limit_seconds=6)
    assert (check.name, check.outcome) == ("conformance", "failed")
    assert check.message.startswith("it did not end within 6 s")


def test_checks_tell_what_they_are_about(bad):
    checks = conformance(bad(HOOK).entry)
    assert {check.outcome for check in checks} >= {"passed", "failed"}
    found = next(check for check in checks if check.name == "is_found_by_name")
    assert found == Check("is_found_by_name", "passed", "", "Its entry point makes it known under its name.")
