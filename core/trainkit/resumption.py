"""What may change about a run that exists: on resume nothing that changes the result, afterwards not the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .config import REMOVAL, Config, Layer, Value
from .documents import components_of, read_versions
from .draft import Draft
from .errors import UsageError
from .kinds import LIST_KINDS
from .registry import Registry
from .request import Reporter
from .rundir import RunDirectory
from .tasks import build_task

# Data may move: its fingerprint, which every checkpoint holds, says whether it is the same.
NEUTRAL_SETTINGS = (
    "data",
    "loop.workers",
    "checkpoint.every_steps",
    "checkpoint.every_epochs",
    "checkpoint.keep",
    "checkpoint.keep_best",
    "checkpoint.background",
    "devices",
    "rank_timeout",
    "threads",
    "keep_heap",
)


def apply_neutral(config: Config, layers: Sequence[Layer]) -> None:
    """Add settings to the config of a run that exists; raise UsageError for one that would change the result."""
    for layer in layers:
        for given, value in layer.items():
            key = config.in_full(given)
            if key in NEUTRAL_SETTINGS:
                config.history.setdefault(key, []).append(value)
            elif not is_known(config, key, value):
                raise UsageError(
                    f"{key} cannot change when a run resumes",
                    where=value.origin,
                    why=f"the run was started with {config.get(key)!r}; only {', '.join(NEUTRAL_SETTINGS)} may change",
                    do="leave it out, or start a new run",
                )


def apply_adjustable(config: Config, layers: Sequence[Layer], registry: Registry, live: Mapping[str, Any]) -> None:
    """Add options of the task to the config of a trained run; raise UsageError for one that is not adjustable."""
    given = {key: value for layer in layers for key, value in layer.items()}
    if not given:
        return
    adjustable = sorted(getattr(build_task(config, registry, live), "adjustable", ()))
    for key, value in given.items():
        kind, _, option = key.partition(".")
        if kind != "task" or option.partition(".")[0] not in adjustable:
            raise UsageError(
                f"{key} cannot change after training",
                where=value.origin,
                why=f"task {config['task.use']} lets change: {', '.join(f'task.{o}' for o in adjustable) or 'nothing'}",
                do="leave it out, or train another model with it",
            )
    config.add(given)


def is_known(config: Config, key: str, new: Value) -> bool:
    """Return whether a value is the one in force, or one that the same place proposed, and was overruled, before."""
    if key in LIST_KINDS:
        removed = {name[len(REMOVAL) :] for name in new.value if name.startswith(REMOVAL)}
        added = {name for name in new.value if not name.startswith(REMOVAL)}
        names = set(config.listed(key))
        return added <= names and not removed & names
    *overruled, in_force = config.history.get(key) or [Value(None, "")]
    return new.value == in_force.value or any((old.value, old.origin) == (new.value, new.origin) for old in overruled)


def is_done(directory: RunDirectory) -> bool:
    """Return whether a run came to its end."""
    status = directory.read_json("status.json")
    return isinstance(status, dict) and status.get("state") == "done"


def check_versions(directory: RunDirectory, draft: Draft, report: Reporter) -> None:
    """Report each component whose version is not the one that the run was started with."""
    then = read_versions(directory)
    for now in components_of(draft):
        before = then.get((now["kind"], now["name"]), now["version"])
        if before != now["version"]:
            report(
                f"warning: {now['kind']} {now['name']} is {now['distribution']} {now['version']}; "
                f"the run was started with {before}"
            )
