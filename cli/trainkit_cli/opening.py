"""Open what was written, where there is a display to see it on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


def open_file(path: Path) -> bool:
    """Open a file in the user's browser and return whether it was; where that cannot be, say where the file is."""
    import webbrowser

    # Without a display a browser of the terminal would take over the session.
    seen = sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    try:
        if seen and webbrowser.open(path.resolve().as_uri()):
            return True
    except webbrowser.Error:
        pass
    click.echo(f"open it in a browser: {path.resolve()}", err=True)
    return False
