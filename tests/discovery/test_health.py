from __future__ import annotations

import os
from pathlib import Path

import pytest
from trainkit.discovery import Entry
from trainkit.errors import PluginError
from trainkit.loader import health

ENTRY = Entry("loss", "focal", "fake_focal", "fake-focal", "1.0")


def states(*entries):
    return [(entry.status, entry.reason) for entry in health.with_failures(entries)]


def test_a_failure_is_remembered_for_that_version_only_and_forgotten():
    health.remember(ENTRY, "import: no")
    assert states(ENTRY, ENTRY._replace(version="1.1")) == [("broken", "import: no"), ("ok", "")]
    health.forget(ENTRY)
    assert states(ENTRY) == [("ok", "")]


def test_what_metadata_tells_goes_before_what_was_seen():
    health.remember(ENTRY, "import: no")
    assert states(ENTRY._replace(status="conflict", reason="also in x")) == [("conflict", "also in x")]


def test_loading_remembers_and_forgets(site):
    site.install("fake-bad", name="bad", code="1 / 0")
    with pytest.raises(PluginError):
        site.registry().load("loss", "bad")
    assert states(*site.entries()) == [
        ("broken", "import: ZeroDivisionError: division by zero (fake_bad/__init__.py, line 1)")
    ]
    file = site.folder / "fake_bad" / "__init__.py"
    file.write_text("from trainkit import hookimpl\n@hookimpl\ndef trainkit_loss():\n    return dict\n")
    site.registry().load("loss", "bad")
    assert states(*site.entries()) == [("ok", "")]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"x"'])
def test_a_damaged_memory_is_an_empty_one(content):
    Path(health.home()).mkdir(parents=True, exist_ok=True)
    (Path(health.home()) / "failures.json").write_bytes(content)
    assert states(ENTRY) == [("ok", "")]
    health.remember(ENTRY, "again")
    assert states(ENTRY) == [("broken", "again")]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAINKIT_HOME", str(tmp_path / "file" / "below"))
    health.remember(ENTRY, "no")
    assert states(ENTRY) == [("ok", "")]


def test_nothing_but_the_memory_is_left_behind():
    health.remember(ENTRY, "no")
    assert os.listdir(health.home()) == ["failures.json"]


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("TRAINKIT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert health.home() == os.path.join("/cache", "trainkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert health.home() == os.path.join(os.path.expanduser("~"), ".cache", "trainkit")
