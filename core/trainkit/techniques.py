"""What a strategy wants of a task, and what of it the task can use: settings, and a note for what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .config import USE
from .kinds import ONE_KINDS
from .plan import Setting, Situation, Technique


@dataclass(frozen=True)
class Want:
    """Ask for a technique.

    Args:
        name: of the technique, as 'stochastic-depth'.
        reason: why the strategy wants it.
        strength: how much of it; the task's own measure if None.
    """

    name: str
    reason: str
    strength: Any = None


def offered(task: object, is_built: bool) -> dict[str, Technique]:
    """Return what a task makes of techniques; an object that was built already takes no other options."""
    found: dict[str, Technique] = dict(getattr(task, "techniques", {}))
    if not is_built:
        return found
    fixed = Technique(lacking="the task is an object, whose options are what they are")
    return {
        name: fixed if any(key.startswith("task.") for key in technique.settings) else technique
        for name, technique in found.items()
    }


def usable(situation: Situation, name: str) -> Technique | None:
    """Return what the task makes of a technique, or None where it cannot use it."""
    technique = situation.techniques.get(name)
    return None if technique is None or technique.lacking else technique


def own_strength(situation: Situation, name: str) -> Any:
    """Return the task's own measure of a technique, or None where it has none."""
    technique = usable(situation, name)
    return technique.settings.get(technique.strength) if technique else None


def settings_for(situation: Situation, wants: Iterable[Want]) -> dict[str, Setting]:
    """Return the settings of the techniques that the task can use.

    Where two name different components of one kind, as a loss, the later one goes before the earlier one, whose options
    for that component then go with it.
    """
    settings: dict[str, Setting] = {}
    for want in wants:
        technique = usable(situation, want.name)
        if technique is None:
            continue
        values = dict(technique.settings)
        if want.strength is not None and technique.strength:
            values[technique.strength] = want.strength
        for kind in ONE_KINDS:
            named = values.get(kind + USE)
            if named is not None and kind + USE in settings and settings[kind + USE].value != named:
                settings = {key: kept for key, kept in settings.items() if key.partition(".")[0] != kind}
        settings |= {key: Setting(value=value, reason=want.reason) for key, value in values.items()}
    return settings


def left_out(situation: Situation, names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each technique that the task cannot use, those it does not know in one."""
    unknown = [name for name in names if name not in situation.techniques]
    notes = [
        f"left out: {name}: {situation.techniques[name].lacking}"
        for name in names
        if name not in unknown and situation.techniques[name].lacking
    ]
    if unknown:
        notes.append(
            f"left out: {', '.join(unknown)}: the task offers {'none' if len(unknown) == 1 else 'none of them'}"
        )
    return tuple(notes)
