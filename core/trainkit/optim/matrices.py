"""Optimizers that step matrices as what they are, in batches, and leave everything else to AdamW."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .adam import adamw_
from .base import closure_loss, plain_step
from .batches import Batch, Batches, States
from .elementwise import ElementwiseOptimizer
from .ops import Operand, Ops

EPS = 1e-8


class MatrixOptimizer(ElementwiseOptimizer):
    """Step some parameters of each group in batches of whole tensors, and the others element by element, by AdamW.

    A subclass gives `in_batches`, `in_blocks` as what is left, `initial_states` and `step_batch`. AdamW takes lr, betas
    and weight_decay of the group, and its eps where it has one.
    """

    moments = ("exp_avg", "exp_avg_sq")
    scratches = 0

    @abstractmethod
    def in_batches(self, group: dict[str, Any]) -> list[Tensor]:
        """Return the parameters of a group that are stepped in batches."""
        raise NotImplementedError

    @abstractmethod
    def initial_states(self, group: dict[str, Any], param: Tensor) -> States:
        """Return the states of a parameter that is stepped in batches, before its first step."""
        raise NotImplementedError

    @abstractmethod
    def step_batch(self, batch: Batch, group: dict[str, Any]) -> None:
        """Step one batch, whose step is counted already."""
        raise NotImplementedError

    @plain_step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; return what the closure returned."""
        loss = closure_loss(closure)
        for number, (group, blocks) in enumerate(self.ready()):
            self.step_group(group, blocks)
            for batch in self._batches_of(number, group).ready(self.in_batches(group)):
                batch.tick()
                self.step_batch(batch, group)
        return loss

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return what AdamW needs."""
        return float(group["lr"]), *group["betas"], group.get("eps", EPS), group["weight_decay"], float(step)

    def update(
        self,
        ops: Ops,
        p: Operand,
        g: Operand,
        moments: Sequence[Operand],
        work: Sequence[Operand],
        *numbers: float,
    ) -> None:
        """Step by AdamW."""
        lr, beta1, beta2, eps, weight_decay, step = numbers
        adamw_(ops, p, g, moments, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, step=int(step))

    def _forget(self) -> None:
        super()._forget()
        self._batches: dict[int, Batches] = {}

    def _batches_of(self, number: int, group: dict[str, Any]) -> Batches:
        if number not in self._batches:
            self._batches[number] = Batches(self.label, self.state, lambda p: self.initial_states(group, p))
        return self._batches[number]
