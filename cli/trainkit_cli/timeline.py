"""A plan over its steps as lines of text: stages as bars, below them what changes when, and the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .drawing import BLOCKS, HEIGHT, draw

if TYPE_CHECKING:
    from trainkit.draft import Draft
    from trainkit.outline import Track
    from trainkit.stages import PlannedStage

MARGIN, NARROWEST, WIDEST_NAME = 2, 8, 18
DENSEST = 3
BAR, MARK, FROM = "█", "╷", "├"


def draw_timeline(draft: Draft, width: int) -> str:
    """Return stages, tracks and learning rate of a draft over one axis of steps.

    Args:
        draft: a planned run.
        width: columns of the drawing, names included.
    """
    from trainkit.curve import awaited_metric, learning_rate_curve
    from trainkit.outline import outline

    tracks = outline(draft)
    names = [*(planned.stage.name for planned in draft.stages), *(track.name for track in tracks)]
    left = min(WIDEST_NAME, max(NARROWEST, *map(len, names)))
    room = width - MARGIN - left - 2
    total = draft.total_steps
    lines = [_line(planned.stage.name, stage_bar(planned, total, room), left) for planned in draft.stages]
    for track in tracks:
        lines += [_line(name, text, left) for name, text in track_lines(track, total, room)]
    curve = learning_rate_curve(draft, room)
    heights = _stretched([rate for _, rate in curve], [step for step, _ in curve], total, room)
    awaited = awaited_metric(draft)
    lines.append(_line("rate", f"as long as {awaited} improves" if awaited else "", left))
    labels = [f"{max(heights):.1e}", *[""] * (HEIGHT - 2), "0"]
    lines += [_line(label.rjust(left), bar, left) for label, bar in zip(labels, draw(heights, HEIGHT), strict=True)]
    epochs = sum(planned.length.epochs for planned in draft.stages)
    axis = " " * (MARGIN + left + 1)
    last = f"{total:,} steps, {epochs:,} {'epoch' if epochs == 1 else 'epochs'}"
    return "\n".join(["timeline", *lines, f"{axis}└{'─' * room}", f"{axis} 0{last.rjust(room - 1)}"])


def stage_bar(planned: PlannedStage, total: int, room: int) -> str:
    """Return a stage as a bar at its steps, what it is beside the bar or within it, wherever there is room."""
    from trainkit.outline import stage_text

    first = column(planned.first_step, total, room)
    last = max(first + 1, column(planned.last_step, total, room))
    text = stage_text(planned)
    bar = " " * first + BAR * (last - first)
    if len(bar) + 1 + len(text) <= room:
        return f"{bar} {text}"
    if len(text) + 1 <= first:
        return f"{text} ".rjust(first) + BAR * (last - first)
    if len(text) + 4 <= last - first:
        return f"{bar[: first + 1]} {text} ".ljust(last, BAR)
    return bar


def track_lines(track: Track, total: int, room: int) -> list[tuple[str, str]]:
    """Return a track as (name, line) pairs; a text that has no room beside the drawing stands below it."""
    if track.levels:
        row = [" "] * room
        steps = [*(column(step, total, room) for step, _ in track.levels), room]
        for place, (_, share) in enumerate(track.levels):
            block = BLOCKS[max(1, round(share * 8))]
            row[steps[place] : steps[place + 1]] = block * (steps[place + 1] - steps[place])
        return [(track.name, "".join(row)), ("", track.text)]
    if not track.marks:
        return [(track.name, track.text)]
    if all(not text for _, text in track.marks):
        if len(track.marks) * DENSEST > room:
            return [(track.name, track.text)]
        row = [" "] * room
        for step, _ in track.marks:
            row[min(room - 1, column(step, total, room))] = MARK
        return [(track.name, "".join(row)), ("", track.text)] if track.text else [(track.name, "".join(row))]
    return [(track.name, marked(track.marks, total, room))]


def marked(marks: Sequence[tuple[int, str]], total: int, room: int) -> str:
    """Return marks as a line: a tick at each step, its text behind it as far as the next tick leaves room."""
    row = [" "] * room
    columns = [min(room - 1, column(step, total, room)) for step, _ in marks]
    for place, (start, (_, text)) in enumerate(zip(columns, marks, strict=True)):
        later = next((c for c in columns[place + 1 :] if c > start), room)
        free = later - start - 1
        # A text that is cut says less than none, unless it is the last word of the line.
        shown = text if len(text) <= free else (text[: free - 1] + "…" if later == room and free > 3 else "")
        row[start] = FROM
        row[start + 1 : start + 1 + len(shown)] = shown
    return "".join(row)


def column(step: int, total: int, room: int) -> int:
    """Return the column of a step."""
    return round(step * room / total)


def _line(name: str, text: str, left: int) -> str:
    shown = name if len(name) <= left else name[: left - 1] + "…"
    return f"{' ' * MARGIN}{shown:<{left}} │{text}".rstrip()


def _stretched(rates: Sequence[float], steps: Sequence[int], total: int, room: int) -> list[float]:
    """Return a value for each column: that of the newest step up to it."""
    found, place = [], 0
    for number in range(room):
        step = number * total / room
        while place + 1 < len(steps) and steps[place + 1] <= step:
            place += 1
        found.append(rates[place])
    return found
