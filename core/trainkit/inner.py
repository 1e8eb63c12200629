"""The mark on the type of an option that takes a component: apart from `nested`, as options are read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class Inner:
    """Mark the type of an option that takes a component: `Annotated[Any, Inner("metric")]`.

    Args:
        kind: kind of the inner component.
    """

    kind: str


InnerLoss = Annotated[Any, Inner("loss")]
