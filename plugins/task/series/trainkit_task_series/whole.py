"""All windows of some data, seen by what was learned before: to measure a trained model on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trainkit.contracts import Finding
from trainkit.errors import DataError

from .inputs import scaling_for
from .learned import Learned
from .panel import Panel
from .splitting import EVER, Part, windows_of
from .windows import Windows


def whole_of(
    panel: Panel, learned: Learned, context: int, horizon: int, stride: int, findings: Sequence[Finding]
) -> Windows:
    """Return every window of a panel. A series that training did not know is scaled by the past of its first window.

    Args:
        panel: the series.
        learned: what was learned in training.
        context: steps of the past.
        horizon: steps that are forecast.
        stride: steps from one window of a segment to the next.
        findings: of reading, which become warnings.

    Raises:
        DataError: there is no window.
    """
    part = Part("all", ((int(panel.times.min()), EVER),))
    starts = windows_of(panel, part, context, horizon, stride, len(learned.schema.targets))
    if not len(starts):
        steps = f"{context + horizon} steps (task.context {context} and task.horizon {horizon})"
        why = f"no series has {steps} without a long gap, or nothing was measured in them"
        raise DataError("there is no window in the data", why=why, do="name data with more rows")
    first = np.searchsorted(panel.series, np.arange(len(panel.names)))
    begins = np.arange(len(panel)) - first[panel.series] < context
    scaling, own = scaling_for(panel, learned, context, begins)
    windows = Windows(starts, context, horizon, panel.names)
    windows.store = learned.store(panel, scaling)
    told = [f"{item.place}: {item.text}" for item in findings]
    windows.warnings = [*told, *(f"{name}: training did not know this series" for name in own)]
    return windows
