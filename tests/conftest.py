"""What all whole-system tests share: no settings of their user, no traces outside temporary folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the caller's TRAINKIT_* away, and keep what trainkit remembers between calls out of the user's cache."""
    for name in os.environ:
        if name.startswith("TRAINKIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRAINKIT_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root folder of the repository."""
    return Path(__file__).resolve().parents[1]
