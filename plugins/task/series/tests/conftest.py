"""What the tests of the task share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

BEGIN = dt.datetime(2026, 1, 1)


def iso(i: int) -> str:
    return (BEGIN + dt.timedelta(minutes=5 * i)).isoformat()


def wave(i: int) -> str:
    return f"{(i * 7) % 13 + i / 100:.3f}"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute in one thread: small models gain nothing from more, and lose a lot where tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of a CSV file of times, five minutes apart, and a value."""

    def write(
        rows=400,
        separator=",",
        head="time,load",
        time=iso,
        value=wave,
        name="a.csv",
        before="",
        after="",
        encoding="utf-8",
    ) -> Path:
        lines = [f"{time(i)}{separator}{value(i)}" for i in range(rows)]
        path = tmp_path / name
        path.write_text(before + "\n".join([head.replace(",", separator), *lines]) + "\n" + after, encoding=encoding)
        return path

    return write
