"""Which wandb run a run directory is: kept beside what wandb writes, so that a resumed run goes on with it."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path

FOLDER, FILE = "wandb", "trainkit-run.json"
_ID = re.compile(r"[0-9a-z]{8}")


def run_id(directory: Path) -> str:
    """Return the id of a run directory's wandb run; the first call draws it and writes it down."""
    path = directory / FOLDER / FILE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["id"]
        if isinstance(known, str) and _ID.fullmatch(known):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    drawn = secrets.token_hex(4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"id": drawn}) + "\n", encoding="utf-8")
    return drawn
