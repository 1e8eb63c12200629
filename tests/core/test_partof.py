"""Where a run stands in something larger, and how long all of it will take."""

from __future__ import annotations

from pathlib import Path

from trainkit.partof import PartOf


def test_the_first_part_tells_what_the_others_take():
    part = PartOf(Path("run"), "fold 1/3", [100, 100, 100, 50], 0, answers_again=True)
    assert (part.total_steps, part.steps_before, part.seconds_before) == (350, 0, 0)
    # Two seconds pass after the steps of a part, before the next one begins.
    assert part.remaining(10.0, 30.0, [42.0, 42.0, 42.0, 15.0]) == 32.0 + 42.0 + 42.0 + 15.0


def test_parts_that_are_over_tell_it_with_all_that_is_no_step():
    part = PartOf(Path("run"), "fold 3/3", [100, 100, 100, 50], 2, (60.0, 40.0))
    assert (part.steps_before, part.seconds_before) == (200, 100.0)
    # They took twice what is expected of them: this one 50 seconds, 20 of which are over, whatever its steps alone say.
    assert part.remaining(20.0, 10.0, [25.0, 25.0, 25.0, 12.5]) == 30.0 + 25.0
    assert part.remaining(20.0, 80.0, [25.0, 25.0, 25.0, 12.5]) == 80.0 + 25.0


def test_the_last_part_has_nothing_after_it():
    assert PartOf(Path("run"), "final", [10, 10], 1, (5.0,)).remaining(4.0, 3.0, [7.0, 7.0]) == 3.0
