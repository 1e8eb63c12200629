"""Every way in which trainkit tells a user that something is wrong, and the exit code that goes with it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Name the exit codes of the command line; they are part of the public API."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    INTERNAL = 3
    PLUGIN = 4
    DATA = 5
    CHECKPOINT = 6
    RESOURCE = 7
    RANKS = 8
    STOPPED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class TrainkitError(Exception):
    """Say what is wrong, where, why, and what to do next.

    Args:
        what: the fault, in one sentence.
        where: file, line, key or flag it was found at.
        why: the cause, where it is not the fault itself.
        do: the next thing to type or to change.
    """

    exit_code: ExitCode = ExitCode.RUN_FAILED

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        self.what, self.where, self.why, self.do = what, where, why, do
        super().__init__(self.render())

    def render(self) -> str:
        """Return the message as the lines a terminal shows."""
        lines = [self.what]
        for label, text in (("where", self.where), ("why", self.why), ("do", self.do)):
            if text:
                first, *rest = text.splitlines()
                lines.append(f"  {label + ':':<7}{first}")
                lines.extend(f"         {line}" for line in rest)
        return "\n".join(lines)


class RunFailed(TrainkitError):
    """The run itself failed: a component raised, or the task could not go on."""


class Diverged(RunFailed):
    """The loss or a gradient is not finite; the update was not applied."""


class UsageError(TrainkitError):
    """The request is wrong: a flag, a key, a value, or parts that do not fit."""

    exit_code = ExitCode.USAGE


class PluginError(TrainkitError):
    """A plugin that the run names cannot be used."""

    exit_code = ExitCode.PLUGIN


class DataError(TrainkitError):
    """The data is missing, empty, damaged or contradicts itself."""

    exit_code = ExitCode.DATA


class CheckpointError(TrainkitError):
    """A checkpoint or a run directory cannot be used."""

    exit_code = ExitCode.CHECKPOINT


class ResourceError(TrainkitError):
    """The machine has not enough disk or memory, or refuses to write."""

    exit_code = ExitCode.RESOURCE


class RanksError(TrainkitError):
    """A rank of the run is lost, or does not answer."""

    exit_code = ExitCode.RANKS


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name a user most likely meant, or None."""
    import difflib

    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return '; did you mean X?', or nothing where nothing is near."""
    close = nearest(name, names)
    return f"; did you mean '{close}'?" if close else ""


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def invalid_name(kind: str, name: str) -> UsageError:
    return UsageError(
        f"'{printable(name)}' is not the name of a {kind}",
        why="names are lower-case words joined by hyphens, as in 'cross-entropy'; "
        "NAME@DISTRIBUTION and ./FILE.py:OBJECT are the other two forms",
        do=f"trainkit plugins --kind {kind}",
    )


def unknown_kind(kind: str, kinds: Iterable[str]) -> UsageError:
    kinds = list(kinds)
    what = f"there is no kind '{printable(kind)}'{did_you_mean(kind, kinds)}"
    return UsageError(what, why=f"kinds: {', '.join(kinds)}")


def unknown_component(
    kind: str, name: str, installed: Iterable[str], available: Iterable[tuple[str, str]]
) -> PluginError:
    """Build the answer to a name that nothing installed offers; `available` holds (name, distribution) pairs."""
    installed, known = list(installed), dict(available)
    if name in known:
        return PluginError(
            f"{kind} '{name}' is not installed",
            why=f"it is offered by the distribution {known[name]}",
            do=f"pip install {known[name]}",
        )
    others = {other: dist for other, dist in known.items() if other not in installed}
    why = f"installed: {_listing(installed)}"
    if others:
        why += "\navailable separately: " + ", ".join(f"{n} (pip install {d})" for n, d in sorted(others.items()))
    return PluginError(
        f"no {kind} named '{name}'{did_you_mean(name, [*installed, *others])}",
        why=why,
        do=f"trainkit plugins --kind {kind}",
    )


def conflicting_components(kind: str, name: str, providers: Iterable[str]) -> PluginError:
    """Build the answer to a name that several distributions offer; `providers` are 'distribution version' texts."""
    providers = sorted(providers)
    first = providers[0].split()[0]
    return PluginError(
        f"{kind} '{name}' is offered by {len(providers)} distributions: {', '.join(providers)}",
        do=f"name one of them, as in --{kind} {name}@{first}, or uninstall the other",
    )


def broken_plugin(kind: str, name: str, distribution: str, phase: str, cause: str, version: str = "") -> PluginError:
    """Build the answer to a plugin that fails while it is loaded.

    Args:
        kind: kind of the component.
        name: its name, or the reference to a file.
        distribution: what offers it; '' for a file or a live object, which the user corrects.
        phase: import, validate or create.
        cause: what it said.
        version: version of the distribution.
    """
    do = "correct it"
    if distribution:
        do = f"pip install --upgrade {distribution}, or pip uninstall {distribution}"
        do += f"; 'trainkit plugins check {kind}/{name}' shows the traceback"
    return PluginError(
        f"{kind} '{printable(name)}' cannot be used: it failed in the phase '{phase}'",
        where=f"{distribution} {version}".strip(),
        why=printable(cause),
        do=do,
    )


def refused_plugin(kind: str, name: str, provider: str, reason: str, do: str) -> PluginError:
    """Build the answer to a component that is installed but not loaded: blocked, damaged, made for another core."""
    return PluginError(f"{kind} '{name}' cannot be used: {reason}", where=provider, do=do)


def unknown_distribution(kind: str, name: str, distribution: str, providers: Iterable[str]) -> PluginError:
    """Build the answer to NAME@DISTRIBUTION where that distribution does not offer the name."""
    providers = sorted(providers)
    return PluginError(
        f"{kind} '{name}' is not offered by '{printable(distribution)}'{did_you_mean(distribution, providers)}",
        why=f"offered by: {_listing(providers)}",
        do=f"trainkit plugins --kind {kind}",
    )


def unknown_plugin(name: str, place: str, names: Iterable[str]) -> UsageError:
    """Build the answer to a block list or allow list that names nothing that is installed."""
    return UsageError(
        f"nothing installed is named '{printable(name)}'{did_you_mean(name, names)}",
        where=place,
        why="a component (lion), KIND/NAME (optimizer/lion) or a distribution (trainkit-optimizer-lion) can be named",
        do="trainkit plugins",
    )


def unknown_key(key: str, allowed: Iterable[str], origin: str) -> UsageError:
    allowed = set(allowed)
    section = key.rpartition(".")[0]
    # Names of the same section, or of the one that is named, say more than a list of everything.
    near = {name for name in allowed if section and name.rpartition(".")[0] == section}
    near = near or {name for name in allowed if name.startswith(f"{key}.")}
    sections = {name.partition(".")[0] for name in allowed}
    use = f"{key}.use"
    return UsageError(
        f"unknown setting '{printable(key)}'"
        + (f"; did you mean '{use}'?" if use in allowed else did_you_mean(key, allowed)),
        where=origin,
        why=f"allowed here: {_listing(near or sections)}" + ("" if near else "; most of them with .OPTION"),
        do="trainkit run --help, or 'trainkit plugins show KIND/NAME' for the options of a component",
    )


def wrong_value(key: str, value: object, expected: str, origin: str) -> UsageError:
    return UsageError(
        f"{key}: {expected} (got {printable(repr(value))})",
        where=origin,
        do=f"trainkit plan --why {key} shows where the value comes from",
    )


def parts_do_not_fit(
    reader: str, missing: Iterable[str], giver: str, gives: Iterable[str], fitting: Iterable[str]
) -> UsageError:
    """Build the answer to a component that reads what the task does not give; `fitting` are names that would fit."""
    fitting = sorted(fitting)
    return UsageError(
        f"{reader} does not fit {giver}: it reads {', '.join(sorted(missing))}, which {giver} does not give",
        why=f"{giver} gives {_listing(gives)}",
        do=f"take one that fits: {', '.join(fitting)}"
        if fitting
        else "take another task, or another component of this kind",
    )


def listed(items: Iterable[object], most: int = 3) -> str:
    """Return the first of several items, and how many more there are: 'a, b, c and 4 more'."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def printable(text: str) -> str:
    """Return the text without control characters, so that data cannot repaint the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
