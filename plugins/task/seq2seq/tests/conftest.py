"""What the tests of the task share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep what is cached apart from the user's, and compute in one thread."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TRAINKIT_HOME", str(home))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield home / "text"
    torch.set_num_threads(before)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of a file of JSON lines."""

    def write(rows, name="pairs.jsonl", before=b"", after=b"") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
        path.write_bytes(before + lines + after)
        return path

    return write
