"""Where a run is. All of it is plain numbers, so a checkpoint holds it as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Moment:
    """Say where a run is.

    Args:
        step: optimizer steps applied so far.
        epoch: epochs finished so far, over all stages.
        stage: index of the stage.
        progress: share of the planned steps behind us, in [0, 1].
        windows: windows of micro-batches consumed in this epoch; more than steps where updates were skipped.
        window: windows consumed in the whole run; what randomness in a step depends on.
        stage_step: the step at which the stage began.
        stage_epoch: the epoch at which the stage began.
        stage_started: whether the stage's start was announced.
        epoch_started: whether the epoch's start was announced.
        samples: training samples consumed so far.
        skipped: updates skipped in a row because a gradient was not finite.
        skipped_total: all updates skipped.
        evaluated_step: the step of the last evaluation, or -1.
        saved_step: the step of the last checkpoint, or -1.
        stage_ended: whether somebody asked the stage to end.
    """

    step: int = 0
    epoch: int = 0
    stage: int = 0
    progress: float = 0.0
    windows: int = 0
    window: int = 0
    stage_step: int = 0
    stage_epoch: int = 0
    stage_started: bool = False
    epoch_started: bool = False
    samples: int = 0
    skipped: int = 0
    skipped_total: int = 0
    evaluated_step: int = -1
    saved_step: int = -1
    stage_ended: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for field in fields(self):
            setattr(self, field.name, state[field.name])
