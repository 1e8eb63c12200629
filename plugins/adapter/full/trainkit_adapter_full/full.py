"""Full fine-tuning: every weight learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class Full:
    """Mark every floating-point weight of a model as one that learns, also those that were fixed before.

    The default, and the yardstick for adapters that learn fewer weights.
    """

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the model itself, all of it learning."""
        for parameter in model.parameters():
            # Quantised weights are integers, and integers have no gradient.
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        return model
