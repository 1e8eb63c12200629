"""A plain formula as one compiled kernel over rows of any length.

PyTorch's ahead-of-time compiler makes a library of the formula; calling it costs about a microsecond, where a call of a
`torch.compile` function costs twenty. Libraries are kept in the user's cache, so that a formula is compiled once.
"""

from __future__ import annotations

import inspect
import logging
import os
import platform
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from xxhash import xxh3_128_hexdigest

from trainkit.errors import ResourceError
from trainkit.loader.health import home

from .base import full_dtype

_log = logging.getLogger(__name__)

Formula = Callable[..., tuple[Tensor, ...]]
Kernel = Callable[[list[Tensor]], list[Tensor]]
EXAMPLE_LENGTH = 64


class _Update(nn.Module):
    """Give a formula's results back into its arguments: what the compiler is shown."""

    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, p: Tensor, g: Tensor, moments: list[Tensor], numbers: Tensor) -> None:
        """Overwrite parameters and moments."""
        full = full_dtype(p.dtype)
        new_p, *new_moments = self.formula(p.to(full), g.to(full), *moments, *numbers.to(full).unbind())
        p.copy_(new_p)
        for moment, new in zip(moments, new_moments, strict=True):
            moment.copy_(new)


class _Direction(nn.Module):
    """Write a formula's direction beside the parameters, and return the sums of squares of both."""

    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self.formula = formula

    def forward(
        self, p: Tensor, g: Tensor, moments: list[Tensor], numbers: Tensor, direction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Overwrite direction and moments."""
        full = full_dtype(p.dtype)
        weights = p.to(full)
        new, *new_moments = self.formula(weights, g.to(full), *moments, *numbers.to(full).unbind())
        direction.copy_(new)
        for moment, value in zip(moments, new_moments, strict=True):
            moment.copy_(value)
        return weights.square().sum(), new.square().sum()


@cache
def compiled_update(formula: Formula, dtype: torch.dtype, moments: int, numbers: int) -> Kernel:
    """Return a kernel (p, g, *moments, numbers) that updates rows of equal length in place.

    Args:
        formula: (p, g, *moments, *numbers) -> (p, *moments), all new, elementwise.
        dtype: of parameters and gradients; moments have the full dtype.
        moments: how many moments there are.
        numbers: how many numbers there are; they are handed over as one float64 tensor.

    Raises:
        ResourceError: there is no working C++ compiler.
    """
    return _library(_Update(formula), dtype, _rows(dtype, moments, numbers))


@cache
def compiled_direction(formula: Formula, dtype: torch.dtype, moments: int, numbers: int) -> Kernel:
    """Return a kernel (p, g, *moments, numbers, direction) -> (sum of p^2, sum of direction^2), as `compiled_update`.

    Args:
        formula: (p, g, *moments, *numbers) -> (direction, *moments), all new, elementwise.
        dtype: of parameters and gradients; moments and the direction have the full dtype.
        moments: how many moments there are.
        numbers: how many numbers there are.
    """
    rows = _rows(dtype, moments, numbers)
    return _library(_Direction(formula), dtype, (*rows, torch.ones(EXAMPLE_LENGTH, dtype=full_dtype(dtype))))


def _rows(dtype: torch.dtype, moments: int, numbers: int) -> tuple[Any, ...]:
    p, g = (torch.ones(EXAMPLE_LENGTH, dtype=dtype) for _ in range(2))
    kept = [torch.ones(EXAMPLE_LENGTH, dtype=full_dtype(dtype)) for _ in range(moments)]
    return p, g, kept, torch.full((numbers,), 0.5, dtype=torch.float64)


def _library(update: _Update | _Direction, dtype: torch.dtype, example: tuple[Any, ...]) -> Kernel:
    path = library_path(type(update).__name__, update.formula, dtype)
    if not path.exists():
        _compile(update, example, path)
    # The loader below PyTorch's convenience wrapper: the wrapper costs ten times what the call itself does.
    return _load(path)


def _load(path: Path) -> Kernel:
    run: Kernel = torch._inductor.aoti_load_package(str(path)).loader.run
    return run


def library_path(role: str, formula: Formula, dtype: torch.dtype) -> Path:
    """Return where the library of a formula lies: a name for its source, this PyTorch and this processor."""
    parts = (
        role,
        formula.__qualname__,
        inspect.getsource(inspect.getmodule(formula) or formula),
        str(dtype),
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        platform.machine(),
        platform.system(),
    )
    digest = xxh3_128_hexdigest("\0".join(parts).encode())
    return Path(home()) / "kernels" / f"{formula.__name__}-{digest[:16]}.pt2"


def _compile(update: _Update | _Direction, example: tuple[Any, ...], path: Path) -> None:
    _log.info("compiling the step of %s, once for this machine", update.formula.__name__)
    length = torch.export.Dim("length", min=1, max=1 << 40)
    shapes = _dynamic(example, length)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(update, example, dynamic_shapes=shapes)
            made = torch._inductor.aoti_compile_and_package(
                exported,
                package_path=str(Path(folder, "kernel.pt2")),
                inductor_configs={"cpp.dynamic_threads": True},
            )
        except Exception as error:
            raise ResourceError(
                "the optimizer's step could not be compiled",
                why=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
                do="install a C++ compiler (g++ or clang), or leave out optimizer.compiled",
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        # Copied beside its place, then renamed: another process never sees half a library.
        half = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.copyfile(made, half)
        os.replace(half, path)


def _dynamic(example: Any, length: Any) -> Any:
    """Return the same nest as the example, with the first dimension of every row of it dynamic."""
    if isinstance(example, tuple | list):
        return type(example)(_dynamic(item, length) for item in example)
    return {0: length} if len(example) == EXAMPLE_LENGTH else None
