"""Checks of metrics: known values, sums that merge, and NaN where nothing was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from trainkit.binding import bind_metric

from .component import ComponentConformance, NotChecked, same
from .seriesinputs import SHARED

Values = Mapping[str, Any]


class MetricConformance(ComponentConformance):
    """Check a metric.

    Attributes:
        cases: (values that `update` reads, expected answer) pairs. The answer is a number, or a mapping of those
            numbers that are to be checked. Values have samples along their first dimension (tensors or lists), but for
            those that belong to no sample: quantile_levels, target_names and series_names.
        tolerance: largest difference from a known value.
    """

    kind = "metric"
    cases: ClassVar[Sequence[tuple[Values, Any]]] = ()
    tolerance: ClassVar[float] = 1e-6

    def known(self) -> Sequence[tuple[Values, Any]]:
        """Return the cases; there is no metric without known values."""
        if not self.cases:
            raise NotChecked("give cases: (values, expected answer) pairs")
        return self.cases

    def measured(self, *parts: Values) -> dict[str, float]:
        """Return a fresh metric's answer after these updates, by part; a number has the part ''."""
        metric = self.build()
        for values in parts:
            bind_metric(metric)(values)
        return answer(metric)

    def test_keeps_the_protocol(self) -> None:
        """It has update, compute, reset and says whether higher is better."""
        metric = self.build()
        assert all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))
        assert isinstance(metric.higher_is_better, bool)

    def test_known_values(self) -> None:
        """It gives the known value of each case."""
        for values, expected in self.known():
            found = self.measured(values)
            wanted = expected if isinstance(expected, Mapping) else {next(iter(found)): expected}
            for part, number in wanted.items():
                assert _close(found[part], number, self.tolerance), f"{part or 'value'}: {found[part]}, not {number}"

    def test_parts_merge_to_the_whole(self) -> None:
        """Sample by sample it gives what it gives for all at once: never an average of averages."""
        for values, _ in self.known():
            whole, pieces = self.measured(values), self.measured(*_samples(values))
            assert all(_close(whole[part], pieces[part], self.tolerance) for part in whole), (whole, pieces)

    def test_order_does_not_matter(self) -> None:
        """The samples in reverse order give the same value."""
        for values, _ in self.known():
            forward, backward = self.measured(*_samples(values)), self.measured(*reversed(_samples(values)))
            assert all(_close(forward[part], backward[part], self.tolerance) for part in forward)

    def test_sums_merge_across_ranks(self) -> None:
        """Where it keeps sums, those of a second metric merge into the first."""
        for values, _ in self.known():
            samples = _samples(values)
            if not hasattr(self.build(), "merge"):
                return
            first, second = self.build(), self.build()
            for number, sample in enumerate(samples):
                bind_metric(second if number else first)(sample)
            first.merge(second.sums)
            whole, merged = self.measured(values), answer(first)
            assert all(_close(whole[part], merged[part], self.tolerance) for part in whole), (whole, merged)

    def test_reset_forgets(self) -> None:
        """After a reset it answers like a fresh metric."""
        values, _ = self.known()[0]
        metric = self.build()
        bind_metric(metric)(values)
        metric.reset()
        assert same(answer(metric), self.measured())
        bind_metric(metric)(values)
        assert same(answer(metric), self.measured(values))

    def test_nothing_seen_is_not_a_number(self) -> None:
        """Before any update it answers NaN, which is taken neither for 0 nor for 1."""
        found = self.measured()
        assert found
        assert all(math.isnan(number) for number in found.values()), found

    def test_computing_changes_nothing(self) -> None:
        """Two answers in a row are the same."""
        values, _ = self.known()[0]
        metric = self.build()
        bind_metric(metric)(values)
        assert same(answer(metric), answer(metric))


def answer(metric: Any) -> dict[str, float]:
    """Return what a metric computes as numbers by part."""
    found = metric.compute()
    return {str(part): float(v) for part, v in found.items()} if isinstance(found, Mapping) else {"": float(found)}


def _samples(values: Values) -> list[Values]:
    count = next(len(value) for name, value in values.items() if name not in SHARED)
    return [{n: value if n in SHARED else value[i : i + 1] for n, value in values.items()} for i in range(count)]


def _close(one: float, other: float, tolerance: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
