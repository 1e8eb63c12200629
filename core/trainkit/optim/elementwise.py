"""Optimizers that treat every element alike: one update, written once, for any number and layout of parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .base import Optimizer, closure_loss, full_dtype, plain_step
from .blocks import AnyBlock, FlatBlock, ListBlock, Scratch, WholeBlock, parts_of
from .checks import OptimizerError, check_gradients
from .compiled import compiled_update
from .layout import Layout, State
from .ops import Operand, Ops


class ElementwiseOptimizer(Optimizer):
    """Step all parameters by an update that treats every element alike.

    A subclass names the moments it keeps, and says how the hyper-parameters of a group become the numbers of one step
    and how it updates. The update is written twice: as `formula`, plain and pure, which is what is compiled on request
    and what tests compare with; and as `update`, in place, which runs everywhere.

    On the CPU small parameters become views of flat buffers at their first step (identity, values and shapes stay), so
    that a thousand biases cost what a few matrices cost. A parameter without a gradient is skipped, and its counter of
    steps does not advance. Half-precision parameters have float32 moments and arithmetic; the result is rounded.

    Args:
        params: parameters, named parameters, or parameter groups.
        defaults: hyper-parameters of groups that do not set their own.
        maximize: ascend instead of descend.
        compiled: run the formula as one compiled kernel. Compiling takes some ten seconds, once for each machine and
            version, and needs a C++ compiler. CPU only.

    Attributes:
        moments: names of the state tensors that lie beside each parameter.
        scratches: how many scratch tensors `update` needs.
        formula: (p, g, *moments, *numbers) -> (p, *moments), all new.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    scratches: ClassVar[int] = 1
    formula: ClassVar[Callable[..., tuple[Tensor, ...]]]

    def __init__(
        self, params: ParamsT, defaults: dict[str, Any], *, maximize: bool = False, compiled: bool = False
    ) -> None:
        self.compiled = compiled
        self._forget()
        super().__init__(params, {**defaults, "maximize": maximize})

    @abstractmethod
    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return the numbers that the update of a group needs at a step, counted from 1."""
        raise NotImplementedError

    @abstractmethod
    def update(
        self, ops: Ops, p: Operand, g: Operand, moments: Sequence[Operand], work: Sequence[Operand], *numbers: float
    ) -> None:
        """Update parameters and moments in place; `g` stays as it is, `work` is scratch memory."""
        raise NotImplementedError

    def initial(self, name: str, param: Tensor) -> Tensor:
        """Return a moment's value before the first step: zeros."""
        return torch.zeros_like(param, dtype=full_dtype(param.dtype), memory_format=torch.preserve_format)

    @plain_step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; return what the closure returned."""
        loss = closure_loss(closure)
        for group, blocks in self.ready():
            self.step_group(group, blocks)
        return loss

    def step_group(self, group: dict[str, Any], blocks: list[AnyBlock]) -> None:
        """Step the blocks of a group."""
        numbers: tuple[float, ...] = ()
        counted = -1
        for block in blocks:
            block.tick()
            if block.count != counted:
                numbers, counted = self.coefficients(group, block.count), block.count
            self.step_block(block, group, numbers)

    def step_block(self, block: AnyBlock, group: dict[str, Any], numbers: tuple[float, ...]) -> None:
        """Step one block: by the compiled kernel where it can, else part by part."""
        if self.compiled and not isinstance(block, ListBlock):
            self.run_kernel(block, group, numbers)
            return
        for ops, p, g, moments, work in parts_of(block, self.scratch, self.scratches, flip=group["maximize"]):
            self.update(ops, p, g, moments, work, *numbers)

    def run_kernel(self, block: FlatBlock | WholeBlock, group: dict[str, Any], numbers: tuple[float, ...]) -> None:
        """Step one block by the compiled formula."""
        kernel = compiled_update(type(self).formula, block.dtype, len(self.moments), len(numbers))
        kernel([block.flat, self.gradient_row(block, group), *block.flat_moments, numbers_tensor(numbers)])

    def gradient_row(self, block: FlatBlock | WholeBlock, group: dict[str, Any]) -> Tensor:
        """Return a block's gradients as one row, to descend by, in the dtype of the parameters."""
        gradient = block.gradient_row().to(block.dtype)
        return -gradient if group["maximize"] else gradient

    def in_blocks(self, group: dict[str, Any]) -> list[Tensor]:
        """Return the parameters of a group that are stepped element by element: all of them."""
        params: list[Tensor] = group["params"]
        return params

    def ready(self) -> Iterator[tuple[dict[str, Any], list[AnyBlock]]]:
        """Yield each group with the blocks that hold its parameters with gradients."""
        while len(self._layouts) < len(self.param_groups):
            self._layouts.append(Layout(self._state_of, self._publish))
        for group, layout in zip(self.param_groups, self._layouts, strict=True):
            yield group, layout.ready(self.in_blocks(group))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a saved state: tensors move to the parameter's device and keep the dtype they were saved in."""
        self.rebuild()
        super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("compiled", False)
        self._forget()

    def rebuild(self) -> None:
        """Give all parameters memory of their own again; the next step lays them out anew."""
        for layout in self._layouts:
            layout.release()
        self._forget()

    def _forget(self) -> None:
        self.scratch = Scratch()
        self._layouts: list[Layout] = []

    def _state_of(self, param: Tensor) -> State:
        check_gradients(self.label, [param])
        state = self.state[param]
        moments = [state[name] if name in state else self.initial(name, param) for name in self.moments]
        return int(state.get("step", 0)), moments

    def _publish(self, block: AnyBlock) -> None:
        if self.compiled and block.params[0].device.type != "cpu":
            raise OptimizerError(
                f"{self.label}: a compiled step is for the CPU",
                where=f"parameters on {block.params[0].device}",
                do="leave out optimizer.compiled: the multi-tensor step is used there",
            )
        for number, param in enumerate(block.params):
            self.state[param] |= {"step": block.clock, **dict(zip(self.moments, block.moments_of(number), strict=True))}


@lru_cache(maxsize=64)
def numbers_tensor(numbers: tuple[float, ...]) -> Tensor:
    """Return the numbers of a step as the tensor that a kernel takes."""
    return torch.tensor(numbers, dtype=torch.float64)
