"""The entry point `trainkit`, and the one place where errors end. It imports little before it knows what for."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: every error a user can cause ends as one message and its exit code.

    Args:
        arguments: what follows the program's name; those of this process if not given.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = _call(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as `head` does. The interpreter flushes once more at its end, into the same broken pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        _hear_no_more()
        code = INTERRUPTED
    except Exception as error:
        if os.environ.get("TRAINKIT_DEBUG") or "--debug" in arguments[:1]:
            raise
        code = _end(error)
    if code == INTERRUPTED:
        _hear_no_more()
    sys.exit(code)


def _hear_no_more() -> None:
    """Ignore further interrupts: what is left is to end, and one that came now would show as a traceback."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(arguments: list[str]) -> int:
    # The plain listing needs nothing of click, whose import would take longer than all of it.
    if arguments in (["plugins"], ["plugins", "--json"]):
        from .listing import list_plugins

        list_plugins(as_json="--json" in arguments)
        return 0
    from .commands import call

    return call(arguments)


def _end(error: Exception) -> int:
    from trainkit.errors import ExitCode, TrainkitError

    if isinstance(error, TrainkitError):
        text, code = f"error: {error.render()}", error.exit_code
    else:
        text, code = _fault_text(error), ExitCode.INTERNAL
    if not _is_told_elsewhere(text, code):
        print(text, file=sys.stderr)
    return code


def _is_told_elsewhere(text: str, code: int) -> bool:
    """Return whether this process is a rank whose failure is told by the one that started it."""
    if "RANK" not in os.environ:
        return False
    from trainkit.ranks.failure import tell_launcher

    return tell_launcher(os.environ, text, code)


def _fault_text(error: Exception) -> str:
    """Return what a user is told about a fault of our own, and leave its traceback in a file."""
    import tempfile
    import traceback

    from trainkit.errors import printable

    first = printable((str(error).splitlines() or [""])[0])
    lines = [f"error: this is a fault of trainkit: {type(error).__name__}: {first}".rstrip(": ")]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="trainkit-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exception(error, file=file)
        lines.append(f"  where: the traceback is in {file.name}")
    except OSError as full:
        lines.append(f"  where: the traceback could not be kept ({full})")
    return "\n".join([*lines, "  do:    please report it with the traceback; 'trainkit --debug ...' shows it here"])
