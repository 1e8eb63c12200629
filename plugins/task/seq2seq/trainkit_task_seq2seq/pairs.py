"""Pairs of texts, and how records become pairs: by two columns, or by a schema of a task that stands on this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainkit.errors import DataError

INPUTS = ("input", "source", "prompt", "instruction", "question", "article", "document", "text", "title", "name")
TARGETS = (
    "target", "output", "response", "completion", "answer", "summary", "highlights", "translation", "label", "text"
)  # fmt: skip
IDS = ("id", "uid", "key")
QUALITY = ("quality", "quality_score")
DIFFICULTY = ("difficulty",)
LOOKED_AT = 200
Record = Mapping[str, Any]


class Unusable(Exception):
    """Say why no pair can be made of a record.

    Args:
        rule: which rule it breaks, in a word or two, as 'no target'.
        text: what is there, and what should be.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule, self.text = rule, text


@dataclass(frozen=True)
class Pair:
    """Hold a text and what is to be written for it.

    Args:
        input: what the model reads.
        target: what it is to write.
        id: a name; '' for one after its place in the data.
        quality: a number, the higher the better; None where nothing tells.
        difficulty: a number, the lower the easier; None for the length of the texts.
        notes: (rule, text) of each repair that was made.
    """

    input: str
    target: str
    id: str = ""
    quality: float | None = None
    difficulty: float | None = None
    notes: tuple[tuple[str, str], ...] = ()


class Schema(Protocol):
    """Make pairs of records.

    Optional methods: `look(records) -> str` sees the first records before any pair is made, and says in words what it
    found; `prompt(record) -> str` makes an input of a record that may have no target; `state_dict` and
    `load_state_dict` keep what was found, as JSON.
    """

    def pair(self, record: Record) -> Pair:
        """Return the pair of a record; raise Unusable."""
        ...


class Columns:
    """Take input and target from two columns, found by their names and content where they are not given.

    Columns `id`, `quality` (or `quality_score`) and `difficulty` are taken along where they are there.

    Args:
        input: column of the input.
        target: column of the target.
    """

    def __init__(self, input: str | None = None, target: str | None = None) -> None:
        self.input, self.target = input, target

    def look(self, records: Sequence[Record]) -> str:
        """Find the columns in the first records, and tell them; raise DataError where none serves."""
        names = list(dict.fromkeys(name for record in records for name in record))
        textual = [name for name in names if any(is_text(record.get(name)) for record in records)]
        target = self.target or _first(TARGETS, textual, {self.input})
        source = self.input or _first(INPUTS, textual, {target})
        plain = [name for name in textual if name.lower() not in (*IDS, *QUALITY, *DIFFICULTY)]
        if (source is None or target is None) and len(plain) == 2:
            source = source or next(name for name in plain if name != target)
            target = target or next(name for name in plain if name != source)
        for option, column in (("task.input", source), ("task.target", target)):
            if column is None or column not in names:
                said = f"{option} = {column!r} is no column" if column else f"no column is known to be the {option[5:]}"
                raise DataError(
                    said,
                    why=f"columns: {', '.join(names) or 'none'}",
                    do="name both, as --set task.input=question --set task.target=answer",
                )
        self.input, self.target = source, target
        return f"input from column {source!r}, target from column {target!r}"

    def pair(self, record: Record) -> Pair:
        """Return the pair of a record; raise Unusable where a text is missing."""
        assert self.input is not None
        assert self.target is not None
        source = text_of(record, self.input, "input")
        return Pair(
            source,
            text_of(record, self.target, "target"),
            str(_value(record, IDS) or ""),
            number_of(_value(record, QUALITY)),
            number_of(_value(record, DIFFICULTY)),
        )

    def prompt(self, record: Record) -> str:
        """Return the input of a record, of a column of another name that is known to be one if need be.

        Raises:
            Unusable: it is missing.
        """
        names = [name for name in record if is_text(record[name])]
        column = self.input if self.input in record else _first(INPUTS, names, {self.target})
        return text_of(record, column or self.input or INPUTS[0], "input")

    def state_dict(self) -> dict[str, Any]:
        """Return the columns."""
        return {"input": self.input, "target": self.target}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.input, self.target = state["input"], state["target"]


def is_text(value: Any) -> bool:
    """Return whether a value is a text, or a list of texts, that says something."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, str) and bool(value.strip())


def text_of(record: Record, column: str, role: str) -> str:
    """Return a column's text, a list line by line; raise Unusable where it says nothing."""
    value = record.get(column)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        raise Unusable(f"no {role}", f"column {column!r} is missing")
    if not isinstance(value, str):
        raise Unusable(f"{role} is no text", f"column {column!r} holds {type(value).__name__}")
    if not value.strip():
        raise Unusable(f"empty {role}", f"column {column!r} is empty")
    return value


def _first(known: Sequence[str], names: Sequence[str], taken: set[str | None]) -> str | None:
    """Return the first column that bears a known name, in the order of what is known."""
    by_name = {name.lower(): name for name in reversed(names) if name not in taken}
    return next((by_name[name] for name in known if name in by_name), None)


def _value(record: Record, names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def number_of(value: Any) -> float | None:
    """Return the finite number that a field holds, also as text; None where it holds none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None
