"""A task by itself: built from a config, and asked for what not every task can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .config import Config, short_name
from .contracts import Answers, Pictures, Prompts
from .errors import UsageError
from .parts import Loader

if TYPE_CHECKING:
    from .contracts import Task
    from .registry import Registry

POWERS: dict[type[Any], str] = {Answers: "answer new inputs", Pictures: "show its samples", Prompts: "answer texts"}


def build_task(config: Config, registry: Registry, live: Mapping[str, Any]) -> Task:
    """Return the task of a config with its checked options; it has read nothing yet."""
    task: Task = Loader(registry, live).part("task", config).build()
    return task


def lacking(task: object, power: type[Any]) -> list[str]:
    """Return what a task lacks of an optional power, as trainkit.contracts.Answers."""
    members = (*getattr(power, "__annotations__", ()), *vars(power))
    return [name for name in dict.fromkeys(members) if name[0] != "_" and not hasattr(task, name)]


def require(task: object, power: type[Any], name: str) -> None:
    """Raise UsageError for a task that lacks an optional power."""
    if missing := lacking(task, power):
        raise UsageError(
            f"task {short_name(name)} cannot {POWERS[power]}",
            why=f"it lacks {', '.join(missing)}",
            do=f"take another task, or give it what trainkit.contracts.{power.__name__} names",
        )
