"""The checks of the kit without pytest: for the command line, and for plugins that have no tests yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainkit.errors import UsageError

from .component import ComponentConformance, NotChecked


@dataclass(frozen=True)
class CheckResult:
    """Hold the outcome of one check.

    Args:
        name: the check's name, without 'test_'.
        outcome: passed, failed, or 'not checked' where only the plugin's own tests can know what is right.
        message: what went wrong, or what is missing.
        about: what is checked, in one sentence.
    """

    name: str
    outcome: Literal["passed", "failed", "not checked"]
    message: str
    about: str


def conformance_of(kind: str) -> type[ComponentConformance]:
    """Return the conformance class of a kind."""
    for cls in ComponentConformance.__subclasses__():
        if cls.kind == kind:
            return cls
    raise UsageError(f"there is no kind '{kind}'")


def run_checks(kind: str, name: str, options: Mapping[str, Any] | None = None) -> list[CheckResult]:
    """Run every check of a kind on an installed component; a failing check stops none of the others."""
    base = conformance_of(kind)
    # A subclass of the class under check, as a plugin's test would be, but not one that declares a kind.
    checked = type(f"Check{base.__name__}", (base,), {"component": name, "options": dict(options or {})})
    return [_outcome(checked, check) for check in sorted(dir(checked)) if check.startswith("test_")]


def _outcome(cls: type[ComponentConformance], check: str) -> CheckResult:
    method = getattr(cls(), check)
    about = (method.__doc__ or "").strip()
    name = check.removeprefix("test_")
    try:
        method()
    except NotChecked as reason:
        return CheckResult(name, "not checked", str(reason), about)
    except Exception as error:
        return CheckResult(name, "failed", f"{type(error).__name__}: {error}", about)
    return CheckResult(name, "passed", "", about)
