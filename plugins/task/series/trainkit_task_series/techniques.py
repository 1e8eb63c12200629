"""What a task of forecasts makes of techniques of training."""

from __future__ import annotations

from collections.abc import Mapping

from trainkit import Technique


def techniques_of_forecasts(dropout: float | None) -> Mapping[str, Technique]:
    """Return what forecasts can use, and why the rest cannot be had; `dropout` is the model's, None if it has none."""
    found = {
        "guidance": Technique(lacking="forecasts are not generated under a condition"),
        "label-smoothing": Technique(lacking="targets are numbers, not classes"),
        "few-shot": Technique(lacking="a window has its own past to look at"),
        "multi-scale": Technique(lacking="windows have one resolution"),
        "dropout": Technique(lacking="a linear model has none"),
    }
    if dropout is not None:
        found["dropout"] = Technique(settings={"task.dropout": dropout}, strength="task.dropout")
    return found
