"""What is made when somebody looks at it, as pictures of answers of which only the data is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from .contracts import Panel


class LatePanels(Sequence[Panel]):
    """Draw panels at the first look at one of them.

    Args:
        draw: returns the panels.
    """

    def __init__(self, draw: Callable[[], Sequence[Panel]]) -> None:
        self.draw = draw

    @cached_property
    def _drawn(self) -> Sequence[Panel]:
        return tuple(self.draw())

    def __getitem__(self, place: Any) -> Any:
        return self._drawn[place]

    def __len__(self) -> int:
        return len(self._drawn)


class LateFiles(Mapping[str, str | bytes]):
    """Make the content of a file when it is asked for.

    Args:
        make: by suffix, what returns the content.
    """

    def __init__(self, make: Mapping[str, Callable[[], str | bytes]]) -> None:
        self.make = make

    def __getitem__(self, suffix: str) -> str | bytes:
        return self.make[suffix]()

    def __contains__(self, suffix: object) -> bool:
        return suffix in self.make

    def __iter__(self) -> Iterator[str]:
        return iter(self.make)

    def __len__(self) -> int:
        return len(self.make)
