"""The base of trainkit's optimizers: checked groups, refused gradients, and a state that keeps its precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .checks import OptimizerError, check_gradients, check_group

FULL = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def full_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which moments of such parameters are kept: float32 for half precision, else their own."""
    return FULL.get(dtype, dtype)


def closure_loss(closure: Callable[[], Any] | None) -> Any:
    """Return what a closure returns, called with gradients enabled; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class Optimizer(torch.optim.Optimizer):
    """Check what an optimizer is given, and load its state as it was saved.

    A subclass adds `step`. PyTorch casts a loaded state to the dtype of the parameter, which would round the float32
    moments of bfloat16 parameters; here a loaded state is what was saved, to the bit.

    Args:
        params: parameters, named parameters, or parameter groups.
        defaults: hyper-parameters of groups that do not set their own.

    Attributes:
        takes_scheduler: whether an external scheduler may act on its rates.
        takes_rate: whether its rate has a meaning that a range test can find.
        beta_count: how many betas a group has, if it has any.

    Raises:
        OptimizerError: lr, eps, weight_decay or a beta of some group is out of range.
    """

    takes_scheduler = True
    takes_rate = True
    beta_count = 2

    @property
    def label(self) -> str:
        """Return the name that messages give."""
        return type(self).__name__

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may set any hyper-parameter of its own. A refused group is not added."""
        super().add_param_group(param_group)
        try:
            self.check(self.param_groups[-1])
        except OptimizerError:
            self.param_groups.pop()
            raise

    def check(self, group: dict[str, Any]) -> None:
        """Raise OptimizerError where a hyper-parameter of a group is out of range; a subclass adds its own."""
        check_group(self.label, group, self.beta_count)

    def with_gradient(self, group: dict[str, Any]) -> list[Tensor]:
        """Return a group's parameters that have a gradient; raise OptimizerError for one that is sparse or complex."""
        found = [p for p in group["params"] if p.grad is not None]
        check_gradients(self.label, found)
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a saved state: tensors move to the parameter's device and keep the dtype they were saved in."""
        super().load_state_dict(state_dict)
        saved, own = state_dict["param_groups"], self.param_groups
        for theirs, ours in zip(saved, own, strict=True):
            for number, parameter in zip(theirs["params"], ours["params"], strict=True):
                _keep_dtypes(state_dict["state"].get(number, {}), self.state.get(parameter, {}))


def _keep_dtypes(saved: dict[str, Any], loaded: dict[str, Any]) -> None:
    for key, value in saved.items():
        if isinstance(value, Tensor) and value.dtype != loaded[key].dtype:
            loaded[key] = value.to(device=loaded[key].device, copy=True)


def plain_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that records no gradients."""
    return torch.no_grad()(step)
