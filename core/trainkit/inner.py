"""The mark on the type of an option that takes a component: apart from `nested`, as options are read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class Inner:
    """Mark the type of an option that takes a component: `Annotated[Any, Inner("metric")]`.

    Args:
        kind: kind of the inner component.
        beside: whether its options stand beside those of the outer one, as `task.context`, not below the option.
    """

    kind: str
    beside: bool = False


InnerLoss = Annotated[Any, Inner("loss")]
BaseTask = Annotated[Any, Inner("task", beside=True)]
