"""Where a run stands in something larger, and how long all of it will take."""

from __future__ import annotations

from pathlib import Path

from trainkit.partof import PartOf


def test_the_first_part_tells_what_the_others_take():
    part = PartOf(Path("run"), "fold 1/3", [100, 100, 100, 50], 0)
    assert (part.total_steps, part.steps_before, part.seconds_before) == (350, 0, 0)
    # 40 seconds for 100 steps, so 100 for the 250 after them.
    assert part.remaining(10.0, 30.0) == 30.0 + 100.0


def test_parts_that_are_over_tell_it_with_all_that_is_no_step():
    part = PartOf(Path("run"), "fold 3/3", [100, 100, 100, 50], 2, (60.0, 40.0))
    assert (part.steps_before, part.seconds_before) == (200, 100.0)
    # Half a second a step: of this part 50 seconds, 20 of which are over, whatever its steps alone say.
    assert part.remaining(20.0, 10.0) == 30.0 + 25.0
    assert part.remaining(20.0, 80.0) == 80.0 + 25.0


def test_the_last_part_has_nothing_after_it():
    assert PartOf(Path("run"), "final", [10, 10], 1, (5.0,)).remaining(4.0, 3.0) == 3.0
