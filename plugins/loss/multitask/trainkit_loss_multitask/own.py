"""The terms of a batch that need no inner loss: places, flags, looks, diversity."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from .aesthetics import aesthetic_losses
from .boxes import BoxLoss, box_losses
from .counts import Counts
from .measurement import Measurement
from .pages import Diversity, divergence, mean_prediction, property_losses

EMPTY_SLOT = 0


def measure_own(
    on: Collection[str],
    values: Mapping[str, Tensor],
    found: Measurement,
    geometry: BoxLoss,
    diversity: Diversity,
    counts: Counts,
    *,
    weighs_flags: bool,
) -> None:
    """Measure those of the terms that come from no inner loss. Half precision is widened.

    Args:
        on: names of terms.
        values: what the batch and the model give.
        found: what the terms are added to.
        geometry: what is measured of boxes.
        diversity: what the mean prediction is compared with.
        counts: classes and flags seen so far.
        weighs_flags: whether flags are weighed by how rare they are.
    """
    if "geom" in on:
        boxes, truth = values["box_predictions"].float(), values["boxes"].float()
        found.add_samples("geom", box_losses(boxes, truth, values["box_mask"], geometry))
    if "props" in on:
        pos_weight = counts.pos_weight() if weighs_flags else None
        losses = property_losses(values["props_logits"].float(), values["props"].float(), pos_weight)
        found.add_samples("props", losses)
    if "aes" in on:
        boxes, more = values["box_predictions"].float(), (values.get("tree_parent"), values.get("mask_rate"))
        found.add_samples("aes", aesthetic_losses(boxes, values["box_mask"], *more))
    if "div" in on:
        logits = values["logits"].float()
        mean = mean_prediction(logits, diverse(values, found))
        apart = divergence(mean, counts.of_classes(logits.shape[-1]), diversity)
        found.add("div", (apart * found.count, found.count))


def diverse(values: Mapping[str, Tensor], found: Measurement) -> Tensor:
    """Return which labels are to be diverse [B, ...]: where slots are hidden, not the empty ones."""
    return found.real & (values["labels"] != EMPTY_SLOT) if "masked" in values else found.real
