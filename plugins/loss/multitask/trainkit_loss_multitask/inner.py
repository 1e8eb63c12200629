"""The inner losses of a batch's terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from trainkit import LossOutput, UsageError
from trainkit.nested import call, reads_of

from .measurement import Measurement, at_count
from .terms import INNER


class InnerLosses(nn.ModuleDict):
    """Hold the inner losses by name, and measure the terms that come from them.

    Args:
        losses: any of diffusion, element, tokens, consistency.
    """

    def __init__(self, losses: Mapping[str, nn.Module]) -> None:
        super().__init__(losses)
        self._required = {name: set(reads_of(loss)[0]) for name, loss in losses.items()}

    def reads(self) -> list[str]:
        """Return every name that one of them reads, needed or not."""
        return [name for loss in self.values() for names in reads_of(loss) for name in names]

    def can_read(self, term: str, names: Collection[str]) -> bool:
        """Return whether the loss that a term comes from finds what it needs; a term of our own always does."""
        return self._required.get(INNER.get(term, ""), set()) <= set(names)

    def measure(self, on: Collection[str], values: Mapping[str, Tensor], found: Measurement) -> None:
        """Measure those of the terms that come from inner losses."""
        for name in ("tokens", "diff"):
            if name in on:
                found.add_inner(name, call(self[INNER[name]], values))
        if "element" in on or "align" in on:
            self._measure_elements(on, call(self["element"], values), found)
        if "consistency" in on:
            self._measure_consistency(call(self["consistency"], values), found)

    def _measure_elements(self, on: Collection[str], output: LossOutput, found: Measurement) -> None:
        """Take the loss of elements without its alignment, and the alignment as a term of its own."""
        parted = "align" in on and not is_dynamic(self["element"])
        if "element" in on:
            rest = [name for name in output.terms if name != "align"]
            sums = [output.weights.get(name, 1.0) * at_count(output.terms[name], output.count) for name in rest]
            pair = (sum(sums), output.count) if parted and "align" in output.terms and rest else None
            found.add_inner("element", output, pair, without=("align",) if parted else ())
        if parted and "align" in output.terms:
            found.add("align", output.terms["align"])
        elif parted:
            found.missing.append("align")

    def _measure_consistency(self, output: LossOutput, found: Measurement) -> None:
        """Take the term of a loss that adds it to another one, which is measured elsewhere; or a loss that is it."""
        if "consistency" in output.inactive:
            found.missing.append("consistency")
        elif "consistency" in output.terms:
            found.add("consistency", output.terms["consistency"])
        else:
            found.add_inner("consistency", output)

    def refuse_dynamic(self) -> None:
        """Raise UsageError if one of them weighs its terms dynamically."""
        for name, loss in self.items():
            if is_dynamic(loss):
                raise UsageError(
                    f"multitask cannot weigh {name} dynamically: it does so with its own terms ({type(loss).__name__})",
                    where=f"loss.{name}",
                    why="two dynamic weightings on top of each other work against each other",
                    do="take loss.weighting=fixed, or an inner loss with fixed weights",
                )


def is_dynamic(loss: nn.Module) -> bool:
    """Return whether a loss, or one inside it, weighs its terms dynamically."""
    return any(getattr(module, "weighs_dynamically", False) for module in loss.modules())
