"""Distributions that exist as metadata and a module in a temporary folder, as if they were installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from trainkit.discovery import Entry, discover
from trainkit.registry import Registry

HEALTHY = """
from trainkit import hookimpl

@hookimpl
def trainkit_{kind}():
    class Found:
        '''Do nothing.'''
    return Found
"""


@dataclass(frozen=True)
class Site:
    """A folder on the path in which distributions are installed by writing their files."""

    folder: Path

    def install(
        self,
        distribution: str,
        kind: str = "loss",
        name: str = "ok",
        code: str = HEALTHY,
        *,
        version: str = "1.0",
        requires: str = "trainkit-core>=0.1,<1",
        entry_points: str | None = None,
        metadata: str | bytes | None = "",
    ) -> str:
        """Install a distribution and return its module's name. Of METADATA, '' is the usual text and None no file."""
        module = distribution.replace("-", "_")
        place = self.folder / f"{module}-{version}.dist-info"
        place.mkdir()
        points = f"[trainkit.{kind}]\n{name} = {module}\n" if entry_points is None else entry_points
        (place / "entry_points.txt").write_text(points)
        usual = f"Name: {distribution}\nVersion: {version}\nSummary: A {kind}\nRequires-Dist: {requires}\n"
        if metadata is not None:
            content = metadata or usual
            (place / "METADATA").write_bytes(content if isinstance(content, bytes) else content.encode())
        (self.folder / module).mkdir()
        (self.folder / module / "__init__.py").write_text(code.replace("{kind}", kind))
        return module

    def entries(self) -> list[Entry]:
        """Return what is installed here."""
        return discover([str(self.folder)])

    def registry(self, **arguments) -> Registry:
        """Return a registry of what is installed here, with an empty catalogue unless another is given."""
        return Registry(self.entries(), **{"catalogue": (), **arguments})


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
