"""A batch and outputs of forecasts to check losses with: every name that losses of series read."""

from __future__ import annotations

import torch
from torch import Tensor

from trainkit.contracts import IGNORED_LABEL

HORIZON, TARGETS, ACTIONS = 5, 3, 3
LEVELS = (0.1, 0.5, 0.9)
# What has no samples along its first dimension, in batches, outputs and predictions of any domain.
SHARED = frozenset({"quantile_levels", "target_names", "series_names"})


def series_inputs(samples: int) -> dict[str, Tensor]:
    """Return forecasts and their truth: some values are missing, one whole sample among them, and are NaN."""
    generator = torch.Generator().manual_seed(1)
    shape = (samples, HORIZON, TARGETS)
    observed = torch.rand(shape, generator=generator) < 0.8
    observed[0] = True
    observed[2] = False
    observed[1, :, 0] = False
    labels = torch.randint(0, ACTIONS, (samples, HORIZON), generator=generator)
    labels[-1, -1] = labels[3] = IGNORED_LABEL
    return {
        "future_values": torch.randn(shape, generator=generator).masked_fill(~observed, float("nan")),
        "future_observed_mask": observed,
        "quantiles": torch.randn(*shape, len(LEVELS), generator=generator),
        "quantile_levels": torch.tensor(LEVELS),
        "point": torch.randn(shape, generator=generator),
        "prices": torch.randn(shape, generator=generator),
        "actions": torch.randn(samples, HORIZON, ACTIONS, generator=generator),
        "action_labels": labels,
    }
