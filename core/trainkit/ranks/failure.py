"""What a rank tells whoever started it about its failure: in the file that PyTorch's elastic agent names for it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LAUNCHED = "RANKS_BY_TRAINKIT"
FILE = "TORCHELASTIC_ERROR_FILE"
LATE, GONE = "another rank does not answer", "another rank is gone"


class Failure(NamedTuple):
    """Hold when a rank failed, which it was, what the user is to read, and the exit code."""

    when: float
    rank: int
    text: str
    code: int


def tell_launcher(environment: Mapping[str, str], text: str, code: int) -> bool:
    """Write a failure down for whoever started the ranks; return whether that is trainkit, which will print it."""
    if FILE not in environment:
        return False
    message = {"message": text, "errorCode": code, "extraInfo": {"timestamp": int(time.time())}}
    own = {"message": message, "when": time.time(), "rank": int(environment.get("RANK", "0"))}
    try:
        Path(environment[FILE]).write_text(json.dumps(own), encoding="utf-8")
    except OSError:
        return False
    return LAUNCHED in environment


def failures(folder: Path) -> list[Failure]:
    """Return the failures of all ranks that the folder of the agent's logs holds, the first one first."""
    found = []
    for path in folder.rglob("error.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            own = json.loads(path.read_text(encoding="utf-8"))
            message = own["message"]
            found.append(Failure(own["when"], own["rank"], message["message"], message["errorCode"]))
    return sorted(found)
