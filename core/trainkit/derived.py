"""Tasks that stand on another task, as stock prices on series: what they do not change is the base's.

The base is another plugin's task, found by name, so the two need nothing of each other but names::

    BASE = {"use": "series", "context": 60, "horizon": 5}

    class Stocks(DerivedTask):
        def __init__(self, base: BaseTask = BASE, policy: Policy = "repair") -> None:
            super().__init__(base)

The options of the base stand beside those of the task on top, with the defaults that the latter gives: `task.context`
is an option of both. `task.base.use` names another base.
"""

from __future__ import annotations

from typing import Any

from .nested import BaseTask as BaseTask
from .nested import built


class DerivedTask:
    """Be a task that stands on another one: every attribute that a subclass does not define is the base's.

    Args:
        base: a task by name, as a table of its name and options, or a live one.
    """

    def __init__(self, base: BaseTask) -> None:
        self.base = built("task", base)

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask before there is a base.
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)
