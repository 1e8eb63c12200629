"""What sets two plans apart: settings with their reasons, stages, and notes; only what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import Config, Value
from .documents import plan_document, read_documents
from .kinds import LIST_KINDS, ONE_KINDS
from .outline import restrictions
from .parts import Loader, Part, described
from .plan import Stage
from .report import counted
from .rundir import RunDirectory
from .settings import describe_settings

if TYPE_CHECKING:
    from .draft import Draft
    from .registry import Registry

# Where a run is written is no part of how it trains.
APART = ("out", "name")
DEFAULT = "default"


@dataclass(frozen=True)
class Side:
    """Hold one of two plans.

    Args:
        name: what it is called.
        settings: the value in force by dotted key, those by default included.
        stages: as in plan.json.
        notes: of the plan.
    """

    name: str
    settings: Mapping[str, Value]
    stages: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    def stage_texts(self) -> list[str]:
        """Return each stage in a few words."""
        return [_stage_text(stage) for stage in self.stages]


@dataclass(frozen=True)
class Difference:
    """Hold two plans side by side.

    Args:
        left: the first one.
        right: the second one.
        keys: the settings that differ, in order.
    """

    left: Side
    right: Side
    keys: Sequence[str]

    @property
    def stages_differ(self) -> bool:
        """Return whether any stage differs, in what it is or in its length."""
        return list(self.left.stages) != list(self.right.stages)

    def document(self) -> dict[str, Any]:
        """Return the difference as JSON."""
        sides = {"left": self.left, "right": self.right}
        return {
            "left": self.left.name,
            "right": self.right.name,
            "settings": {
                key: {name: _value_document(side.settings.get(key)) for name, side in sides.items()}
                for key in self.keys
            },
            "stages": {name: list(side.stages) for name, side in sides.items()} if self.stages_differ else {},
            "notes": {
                name: [note for note in side.notes if note not in other.notes]
                for (name, side), other in zip(sides.items(), (self.right, self.left), strict=True)
            },
        }


def difference(left: Side, right: Side) -> Difference:
    """Return what sets two plans apart."""
    keys = sorted({*left.settings, *right.settings})
    return Difference(left, right, [key for key in keys if _differs(left, right, key)])


def _differs(left: Side, right: Side, key: str) -> bool:
    mine, other = left.settings.get(key), right.settings.get(key)
    if all(value is None or value.origin == DEFAULT for value in (mine, other)) and (
        mine is None or other is None or key.startswith("strategy.")
    ):
        # What follows from another name that differs: the options of a component that one side lacks, and those of a
        # strategy, whose plan is what is compared.
        return False
    return _plain(left, key) != _plain(right, key)


def side_of_draft(name: str, draft: Draft, registry: Registry) -> Side:
    """Return the side of a planned run."""
    document = plan_document(draft)
    settings = settings_in_force(draft.config, draft.outer_parts(), registry)
    return Side(name, settings, document["stages"], document["plan"]["notes"])


def side_of_run(path: Path, registry: Registry) -> Side:
    """Return the side of a run directory, from its documents; its data is not read.

    Raises:
        TrainkitError: it is no run directory, a document is damaged, or a component is not installed.
    """
    directory = RunDirectory.read(path)
    config, plan = read_documents(directory)
    loader = Loader(registry, {})
    parts = [loader.part(kind, config) for kind in ONE_KINDS]
    parts += [part for kind in LIST_KINDS for part in loader.listed(kind, config).values()]
    stages = directory.read_json("plan.json")["stages"]
    return Side(str(path), settings_in_force(config, parts, registry), stages, plan.notes)


def settings_in_force(config: Config, parts: Sequence[Part], registry: Registry) -> dict[str, Value]:
    """Return every setting and option with its value, by dotted key; stages and where a run is written left out."""
    defaults = {name: Value(default, DEFAULT) for name, default, _ in describe_settings()}
    for part in (part for outer in parts for part in (outer, *outer.inner())):
        for name, _, default, _ in described(part.component, registry):
            if name not in part.component.inner:
                defaults.setdefault(part.component.key(name), Value(default, DEFAULT))
    given = {key: values[-1] for key, values in config.history.items() if values}
    found = defaults | given
    return {key: value for key, value in found.items() if key not in APART and not key.startswith("stages.")}


def _plain(side: Side, key: str) -> tuple[bool, Any]:
    value = side.settings.get(key)
    if value is None:
        return (False, None)
    plain = value.value
    return (True, list(plain) if isinstance(plain, tuple) else plain)


def _value_document(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    plain = value.value if isinstance(value.value, int | float | str | bool | list | tuple | dict | None) else None
    return {"value": str(value.value) if plain is None and value.value is not None else plain} | {
        "origin": value.origin,
        "reason": value.reason,
    }


def _stage_text(document: Mapping[str, Any]) -> str:
    stage = Stage.model_validate({key: document[key] for key in Stage.model_fields if key in document})
    length = document["length"]
    parts = [counted(length["epochs"], "epoch"), counted(length["steps"], "step"), *restrictions(stage)]
    if stage.restart_schedule:
        parts.append("its own schedule")
    return f"{stage.name}: {', '.join(parts)}"
