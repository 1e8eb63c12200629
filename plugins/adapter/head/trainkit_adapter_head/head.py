"""The adapter `head`: the last part of a model learns, what is before it stays."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn
from trainkit import UsageError


class Head:
    """Let only the head of a model learn: the parameters whose names match, or those of its last part.

    The last part is found by the structure: from the model inwards, always the last part that has parameters, as long
    as there are several to choose from. A weight that the head shares with another part, as with an embedding, learns.

    Args:
        patterns: names of parameters as in `fnmatch`, as "lm_head.*"; the last part of the model if not given.
    """

    def __init__(self, patterns: tuple[str, ...] = ()) -> None:
        self.patterns = tuple(patterns)

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the model itself, nothing but its head learning."""
        heads = matching(model, self.patterns) if self.patterns else list(last_part(model).parameters())
        model.requires_grad_(False)
        for parameter in heads:
            # Quantised weights are integers, and integers have no gradient.
            parameter.requires_grad_(parameter.is_floating_point())
        return model


def last_part(model: nn.Module) -> nn.Module:
    """Return the last part of a model that has parameters, after going into parts that are alone."""
    while True:
        parts = [part for part in model.children() if next(part.parameters(), None) is not None]
        if len(parts) != 1 or next(model.parameters(recurse=False), None) is not None:
            return parts[-1] if parts else model
        model = parts[0]


def matching(model: nn.Module, patterns: Sequence[str]) -> list[nn.Parameter]:
    """Return the parameters that a pattern matches; raise UsageError for a pattern that matches none."""
    named = dict(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            raise UsageError(
                f"no parameter of the model matches '{pattern}'",
                where="adapter.patterns",
                why="top-level parts of the model: " + ", ".join(dict.fromkeys(n.partition(".")[0] for n in named)),
            )
    return [p for name, p in named.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
