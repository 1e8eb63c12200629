"""Calls by what is read."""

from __future__ import annotations

import torch
from torch import nn
from trainkit.binding import bind_loss, bind_metric, bind_model
from trainkit.contracts import reading


class TwoInputs(nn.Module):
    def forward(self, logits: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor | None = None) -> str:
        return "boxes" if boxes is not None else "none"


def test_parameters_name_what_is_read_and_defaults_make_it_optional() -> None:
    binding = bind_loss(TwoInputs())
    assert binding.missing({"logits"}) == {"labels"}
    assert binding({"logits": 1, "labels": 2, "else": 3}) == "none"
    assert binding({"logits": 1, "labels": 2, "boxes": 3}) == "boxes"
    assert binding.given({"logits", "labels"})({"logits": 1, "labels": 2, "boxes": 3}) == "none"


def test_a_foreign_class_reads_by_the_order_of_its_parameters() -> None:
    binding = bind_loss(reading(nn.CrossEntropyLoss, "logits", "labels")())
    assert binding.missing(set()) == {"logits", "labels"}
    value = binding({"logits": torch.zeros(2, 4), "labels": torch.zeros(2, dtype=torch.long), "more": 1})
    assert torch.isclose(value, torch.tensor(4.0).log())


def test_metrics_bind_by_update_and_models_by_forward() -> None:
    class Metric:
        def update(self, predictions: object) -> object:
            return predictions

    assert bind_metric(Metric())({"predictions": 3, "labels": 4}) == 3
    assert bind_model(nn.Linear(2, 3))({"input": torch.zeros(1, 2)}).shape == (1, 3)
