"""What all whole-system tests share: no settings of their user, no traces outside temporary folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Ended(NamedTuple):
    """Hold how a command ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


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


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return the command line as a function, in this process, in a folder of the test's own."""
    from trainkit_cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        return Ended(0 if code is None else int(code), *capsys.readouterr())

    return call
