"""The beginning of what a model writes, for a terminal: a few lines now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from trainkit.errors import printable

SECONDS_BETWEEN = 10.0
MOST_TEXTS, MOST_LINES, WIDTH = 2, 3, 100


class Excerpts:
    """Tell how texts begin, at most every ten seconds.

    Args:
        write: takes a line.
        clock: tells seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._last = -SECONDS_BETWEEN

    def tell(self, step: int, texts: Mapping[str, str]) -> None:
        """Write the first lines of the first texts, unless others were written a moment ago."""
        if self._clock() - self._last < SECONDS_BETWEEN:
            return
        self._last = self._clock()
        for tag, text in list(texts.items())[:MOST_TEXTS]:
            self._write(f"{printable(tag)}, step {step}")
            for line in excerpt(text):
                self._write(f"  {line}")


def excerpt(text: str) -> list[str]:
    """Return the first lines of a text that are not empty, each cut to fit, with a mark where there is more."""
    lines = [line.strip() for line in printable(text).splitlines() if line.strip()]
    shown = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES and not shown[-1].endswith("…"):
        shown[-1] = shown[-1][: WIDTH - 2] + " …"
    return shown
