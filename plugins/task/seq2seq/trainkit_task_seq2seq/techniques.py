"""What text to text makes of techniques of training."""

from __future__ import annotations

from collections.abc import Mapping

from trainkit import Technique

SMOOTHING = 0.1


def techniques_of_text(dropout: float | None) -> Mapping[str, Technique]:
    """Return what can be used, and why the rest cannot; `dropout` is the model's, None where it has none."""
    found = {
        "label-smoothing": Technique(
            settings={"loss.use": "cross-entropy", "loss.label_smoothing": SMOOTHING}, strength="loss.label_smoothing"
        ),
        "guidance": Technique(lacking="texts are not generated under a condition that may be left out"),
        "few-shot": Technique(lacking="examples belong into the input, by task.templates"),
        "multi-scale": Technique(lacking="texts have one resolution"),
        "stochastic-depth": Technique(lacking="models of transformers keep all of their layers"),
        "dropout": Technique(lacking="the model has none"),
    }
    if dropout is not None:
        found["dropout"] = Technique(settings={"task.dropout": dropout}, strength="task.dropout")
    return found
