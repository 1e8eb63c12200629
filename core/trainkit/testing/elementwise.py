"""Checks of optimizers that are built on trainkit.optim: each does what its own formula says, wherever tensors lie."""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest
from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from trainkit.optim import ElementwiseOptimizer, OptimizerError, ScaledOptimizer
from trainkit.optim.base import full_dtype
from trainkit.optim.blocks import FlatBlock, ListBlock, WholeBlock
from trainkit.optim.compiled import compiled_direction, compiled_update

from .component import raises
from .optimizer import OptimizerConformance

SHAPES = [(3,), (4, 5), (), (17,), (4, 6), (41_000,), (130, 150)]
TRANSPOSED = (6, 8)
Gradient = Callable[[Tensor, int, int], Tensor]


class ElementwiseConformance(OptimizerConformance):
    """Check an `ElementwiseOptimizer` or a `ScaledOptimizer`, besides what holds for every optimizer.

    Attributes:
        state_bytes: bytes of moments per float32 parameter.
        rate: the rate at which it is compared with its formula; its default if not given.
    """

    state_bytes: ClassVar[int]
    rate: ClassVar[float | None] = None

    def elementwise(self, params: Sequence[Tensor], **extra: Any) -> ElementwiseOptimizer:
        """Return a fresh optimizer with extra options."""
        rate = {} if self.rate is None else {"lr": self.rate}
        optimizer = self.build({**rate, **extra}, params=params)
        assert isinstance(optimizer, ElementwiseOptimizer)
        return optimizer

    def test_every_kind_of_block_follows_the_formula(self) -> None:
        """Small, large and strided tensors move as the plain formula says: to 1e-6 of their norm after 50 steps."""
        params = _tensors()
        optimizer = self.elementwise(params)
        expected = follow_formula(self.elementwise(_tensors()), _tensors(), 50)
        take_steps(optimizer, params, 50)
        kinds = {type(block) for layout in optimizer._layouts for block in layout.blocks}
        assert kinds == {FlatBlock, WholeBlock, ListBlock}
        _assert_close(params, expected, 1e-6)

    def test_half_precision_is_rounded_once_a_step(self) -> None:
        """Weights of half precision have float32 moments and arithmetic: only the result of a step is rounded."""
        for dtype in (torch.bfloat16, torch.float16):
            params = _tensors(dtype)
            optimizer = self.elementwise(params)
            take_steps(optimizer, params, 10)
            _assert_close(params, follow_formula(self.elementwise(_tensors(dtype)), _tensors(dtype), 10), 1e-3)
            assert all(optimizer.state[p][name].dtype == torch.float32 for p in params for name in optimizer.moments)

    def test_moments_take_what_is_documented(self) -> None:
        """The moments of a float32 parameter take `state_bytes`."""
        point = nn.Parameter(torch.ones(100))
        optimizer = self.elementwise([point])
        take_steps(optimizer, [point], 1)
        held = sum(value.nbytes for name, value in optimizer.state[point].items() if name != "step")
        assert held == 100 * self.state_bytes

    def test_maximize_turns_thegradient_of(self) -> None:
        """With `maximize` it moves as it does along the opposite gradients without."""
        up, down = _tensors(), _tensors()
        take_steps(self.elementwise(up, maximize=True), up, 3)
        take_steps(self.elementwise(down), down, 3, sign=-1.0)
        _assert_close(up, down, 1e-6)

    def test_takes_a_tensor_as_its_rate(self) -> None:
        """A rate in a tensor is the same as one in a number."""
        number, tensor = _tensors(), _tensors()
        first, second = self.elementwise(number), self.elementwise(tensor)
        first.param_groups[0]["lr"] = 0.25
        second.param_groups[0]["lr"] = torch.tensor(0.25)
        take_steps(first, number, 2)
        take_steps(second, tensor, 2)
        _assert_close(number, tensor, 0.0)

    def test_what_starts_late_counts_its_own_steps(self) -> None:
        """A parameter that is unfrozen later moves as it would alone."""
        first, late, alone = (nn.Parameter(torch.linspace(-1.0, 1.0, 7)) for _ in range(3))
        together, single = self.elementwise([first, late]), self.elementwise([alone])
        for step in range(6):
            gradient = gradient_of(first, step, 0)
            first.grad = gradient
            if step >= 3:
                late.grad, alone.grad = gradient.clone(), gradient.clone()
                single.step()
            together.step()
        assert int(together.state[first]["step"]) == 6
        assert int(together.state[late]["step"]) == 3
        _assert_close([late], [alone], 1e-6)

    def test_refuses_complex_gradients(self) -> None:
        """A complex gradient is refused, not misread."""
        point = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        point.grad = torch.ones(2, dtype=torch.complex64)
        with raises(OptimizerError):
            self.elementwise([point]).step()

    def test_the_compiled_step_does_what_the_eager_one_does(self) -> None:
        """The compiled kernel moves weights as the eager step does, to 1e-6 of their norm."""
        if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
            raise unittest.SkipTest("there is no C++ compiler (g++ or clang++)")
        eager, compiled = _tensors(), _tensors()
        take_steps(self.elementwise(eager), eager, 5)
        with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, {"TRAINKIT_HOME": home}):
            take_steps(self.elementwise(compiled, compiled=True), compiled, 5)
            assert os.listdir(os.path.join(home, "kernels")), "nothing was compiled"
        compiled_update.cache_clear()
        compiled_direction.cache_clear()
        _assert_close(compiled, eager, 1e-6)


def gradient_of(param: Tensor, step: int, number: int) -> Tensor:
    """Return a gradient of a parameter, drawn anew for each step and each number of a parameter."""
    generator = torch.Generator().manual_seed(1000 * step + number)
    return (0.1 * torch.randn(param.shape, generator=generator)).to(param.dtype)


def follow_formula(
    optimizer: ElementwiseOptimizer, params: Sequence[Tensor], steps: int, gradient: Gradient = gradient_of
) -> list[Tensor]:
    """Return where parameters come to by an optimizer's formula alone, tensor by tensor, rounded once a step.

    Args:
        optimizer: whose formula; it has one group.
        params: where they begin.
        steps: how many.
        gradient: of a parameter at a step, from 0, by its number.
    """
    (group,) = optimizer.param_groups
    found = []
    for number, param in enumerate(params):
        p = param.detach()
        full = full_dtype(p.dtype)
        moments = [optimizer.initial(name, param) for name in optimizer.moments]
        for step in range(1, steps + 1):
            numbers = [torch.tensor(value, dtype=full) for value in optimizer.coefficients(group, step)]
            g = gradient(param, step - 1, number).to(full)
            new, *moments = type(optimizer).formula(p.to(full), g, *moments, *numbers)
            if isinstance(optimizer, ScaledOptimizer):
                new = _scaled(optimizer, group, step, p.to(full), new)
            p = new.to(p.dtype)
        found.append(p)
    return found


def _scaled(optimizer: ScaledOptimizer, group: dict[str, Any], step: int, p: Tensor, direction: Tensor) -> Tensor:
    size = p.numel() ** 0.5 if optimizer.measure == "rms" else 1.0
    weights, directions = ((value.norm() / size).reshape(1) for value in (p, direction))
    length = optimizer.lengths(group, step, weights, directions)
    return p - length * direction - optimizer.decay(group) * p


def _tensors(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in SHAPES]
    values.append(torch.randn(TRANSPOSED, generator=generator).t())
    return [nn.Parameter(value.to(dtype)) for value in values]


def take_steps(
    optimizer: torch.optim.Optimizer,
    params: Sequence[Tensor],
    steps: int,
    sign: float = 1.0,
    gradient: Gradient = gradient_of,
) -> None:
    """Let an optimizer take steps along the gradients that `follow_formula` follows, or along their opposites."""
    for step in range(steps):
        for number, p in enumerate(params):
            p.grad = sign * gradient(p, step, number)
        optimizer.step()


def _assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    # By the norm of each tensor: where a sign decides, one rounding may turn a single element in a million.
    for one, other in zip(found, expected, strict=True):
        difference = float((one.detach().double() - other.detach().double()).norm() / other.detach().double().norm())
        assert difference <= tolerance, f"a tensor of shape {tuple(one.shape)} differs by {difference:.1e} of its norm"
