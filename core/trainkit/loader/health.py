"""What went wrong with plugins before, so that a listing, which imports none, can show a plugin as broken."""

from __future__ import annotations

import os
from collections.abc import Iterable

from trainkit.discovery import Entry

MAX_REASON = 400


def home() -> str:
    """Return the folder for what trainkit remembers: $TRAINKIT_HOME, or `trainkit` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("TRAINKIT_HOME") or os.path.join(cache, "trainkit")


def remember(entry: Entry, reason: str) -> None:
    """Remember that a plugin failed, and why. A folder that cannot be written is no error."""
    _write({**_read(), _key(entry): reason[:MAX_REASON]})


def forget(entry: Entry) -> None:
    """Forget the failure of a plugin: it works."""
    failures = _read()
    if failures.pop(_key(entry), None) is not None:
        _write(failures)


def with_failures(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries, with status broken and the reason where a plugin that is otherwise fine failed before."""
    failures = _read()
    return [
        entry._replace(status="broken", reason=failures[_key(entry)])
        if entry.status == "ok" and _key(entry) in failures
        else entry
        for entry in entries
    ]


def _key(entry: Entry) -> str:
    # With the version: what failed in one need not fail in the next.
    return f"{entry.kind}/{entry.name} {entry.distribution} {entry.version}"


def _file() -> str:
    return os.path.join(home(), "failures.json")


def _read() -> dict[str, str]:
    # Where nothing ever failed, a listing does not pay for json.
    if not os.path.exists(_file()):
        return {}
    import json

    try:
        with open(_file(), encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return {str(key): str(reason) for key, reason in content.items()} if isinstance(content, dict) else {}


def _write(failures: dict[str, str]) -> None:
    import json

    temporary = f"{_file()}.{os.getpid()}"
    try:
        os.makedirs(home(), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(failures, file, indent=1, sort_keys=True)
        os.replace(temporary, _file())
    except OSError:
        return
