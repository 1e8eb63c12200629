"""What of a split is judged, put where an evaluation meets it together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trainkit.contracts import Batch, Dataset, Sample
from trainkit_task_seq2seq.flat import Array


class JudgedFirst:
    """Be a dataset whose first samples count as the longest, so that they share batches and come before all others.

    To write texts takes as long for one sample as for a batch of them: spread over all batches they would take many
    times longer.

    Args:
        dataset: what is measured.
        judged: how many of its samples are judged.
    """

    def __init__(self, dataset: Dataset, judged: int) -> None:
        self.dataset, self.judged = dataset, judged

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> Sequence[Sample] | Batch:
        return self.dataset.__getitems__(indices)

    @property
    def lengths(self) -> Array | None:
        """Return the tokens of each sample, those of judged ones above all others; None where nothing tells."""
        found = getattr(self.dataset, "lengths", None)
        if found is None or not len(self):
            return None
        lengths = np.array(found)
        lengths[: self.judged] += lengths.max()
        return lengths
