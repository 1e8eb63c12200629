"""What is to be answered: files and folders, texts as they are typed, and texts on standard input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from .contracts import Answers, Dataset, Prompts
from .errors import DataError, UsageError, listed
from .measuring import Joined
from .request import Reporter
from .tasks import lacking

STANDARD_INPUT = "-"
_LIKE_A_PATH = re.compile(r"\S*([/\\]|\.[A-Za-z]\w{0,7}$)\S*")
_LINE_END = re.compile(r"\r\n|\r|\n")

Given = Path | str


def is_there(given: Given) -> bool:
    """Return whether what is to be answered is a file or a folder."""
    return given != STANDARD_INPUT and os.path.exists(given)


def is_prompt(given: Given) -> bool:
    """Return whether what is to be answered, and is no file, can be a text: a word like prompts.txt is a wrong path."""
    return isinstance(given, str) and not _LIKE_A_PATH.fullmatch(given)


def check_inputs(inputs: Sequence[Given]) -> None:
    """Raise an error for what can be neither a file nor a text, before a model is loaded.

    Args:
        inputs: paths; and texts, which are paths where there is such a file, '-' for standard input, else prompts.
    """
    if not inputs:
        raise UsageError("no input is named", do="trainkit predict RUN INPUT...")
    if [str(given) for given in inputs].count(STANDARD_INPUT) > 1:
        raise UsageError("standard input is named twice", do="name '-' once")
    if any(isinstance(given, str) and not given.strip() for given in inputs):
        raise DataError("a prompt is empty", do="say what is to be answered")
    _refuse_absent([given for given in inputs if not is_there(given) and not is_prompt(given)])


def _refuse_absent(missing: Sequence[Given], why: str = "", do: str = "check the path") -> None:
    if missing:
        raise DataError("there is no such input", where=listed(missing), why=why, do=do)


def dataset_of(task: Answers, name: str, inputs: Sequence[Given], report: Reporter) -> Dataset:
    """Return what is to be answered as one dataset, in the order in which it is named.

    Args:
        task: what answers; it has the power trainkit.contracts.Prompts if there are texts.
        name: of the task, for messages.
        inputs: as `check_inputs` wants them.
        report: hears of what is left out.
    """
    typed = [given for given in inputs if not is_there(given)]
    if typed and lacking(task, Prompts):
        _refuse_absent(typed, f"task {name} reads files, and answers no texts")
    parts = [_part(task, are_texts, list(group), report) for are_texts, group in groupby(inputs, _is_typed)]
    if len(parts) == 1:
        return parts[0]
    return Joined(parts, [warning for part in parts for warning in getattr(part, "warnings", ())])


def _is_typed(given: Given) -> bool:
    return not is_there(given)


def _part(task: Any, are_texts: bool, group: Sequence[Given], report: Reporter) -> Dataset:
    if not are_texts:
        files: Dataset = task.inputs([Path(given) for given in group])
        return files
    texts = [text for given in group for text in (_lines(report) if given == STANDARD_INPUT else [str(given)])]
    asked: Dataset = task.prompts(texts)
    return asked


def _lines(report: Reporter) -> list[str]:
    """Return the prompts on standard input, one a line."""
    if sys.stdin is None or sys.stdin.closed:
        raise DataError("there is no standard input", do="pipe lines into the command, or name a file")
    if sys.stdin.isatty():
        report("a prompt a line; end with Ctrl-D")
    texts, empty = lines_of(sys.stdin.buffer.read())
    if empty:
        report(f"warning: {empty} empty line{'s' if empty > 1 else ''} of standard input left out")
    return texts


def lines_of(content: bytes) -> tuple[list[str], int]:
    """Return the lines of a text that are not empty, and how many are.

    Raises:
        DataError: it is no text in UTF-8, or has no line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"byte {error.start + 1} of {len(content)} is not UTF-8"
        raise DataError("standard input is no text", why=why, do="pipe a text file, a prompt a line") from None
    if "\0" in text:
        why = "it has bytes that are zero, as binary files have"
        raise DataError("standard input is no text", why=why, do="pipe a text file, a prompt a line")
    lines = _LINE_END.split(text.removesuffix("\n").removesuffix("\r")) if text else []
    found = [line for line in lines if line.strip()]
    if not found:
        raise DataError("there is nothing on standard input", do="pipe lines into the command, a prompt a line")
    return found, len(lines) - len(found)
