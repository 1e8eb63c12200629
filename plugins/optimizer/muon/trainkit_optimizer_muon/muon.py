"""Muon: momentum made orthogonal, for the hidden matrices of a network; AdamW for all other parameters."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import OptimizerError
from trainkit.optim.base import full_dtype
from trainkit.optim.batches import Batch
from trainkit.optim.checks import Beta
from trainkit.optim.matrices import MatrixOptimizer

Adjustment = Literal["match_rms_adamw", "original"]
Precision = Literal["auto", "float32", "bfloat16"]

ITERATIONS = 5
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
LEAST_NORM = 1e-7
WIDE = 1.5
OTHERS = ("*embed*", "*position*", "*table*", "*bias*", "wte", "wpe", "head", "heads", "*_head", "classifier")


def newton_schulz(x: Tensor) -> Tensor:
    """Return matrices whose singular values are near 1 (0.7 to 1.2) and whose singular vectors are those of x.

    Args:
        x: matrices [..., rows, columns] with rows <= columns and a Frobenius norm of at most 1.

    Source: Jordan et al. 2024: five iterations of a x + (b x x' + c (x x')^2) x.
    """
    multiply = torch.addmm if x.ndim == 2 else torch.baddbmm
    gram = x.new_empty(*x.shape[:-1], x.shape[-2])
    # Results of one size after the other would give memory back to the system, and fault it in again. They lie row by
    # row, since stacks of bfloat16 are multiplied a hundred times slower into any other order.
    x = x.clone(memory_format=torch.contiguous_format)
    rest, spare = torch.empty_like(gram), torch.empty_like(x)
    for _ in range(ITERATIONS):
        torch.matmul(x, x.mT, out=gram)
        multiply(gram, gram, gram, beta=CUBIC, alpha=QUINTIC, out=rest)
        multiply(x, rest, x, beta=LINEAR, out=spare)
        x, spare = spare, x
    return x


def newton_schulz_factor(gram: Tensor) -> Tensor:
    """Return q such that q x is `newton_schulz(x)`, from gram = x x' alone.

    All iterations are polynomials in x x', which is small where x is wide: they are applied to it, and only their
    product to x. Rounding is amplified more than in `newton_schulz`, up to a hundred times where singular values differ
    by a million: for float32 and float64, not for bfloat16.

    Args:
        gram: [..., rows, rows].
    """
    multiply = torch.addmm if gram.ndim == 2 else torch.baddbmm
    product = None
    for iteration in range(ITERATIONS):
        rest = multiply(gram, gram, gram, beta=CUBIC, alpha=QUINTIC)
        if iteration < ITERATIONS - 1:
            half = multiply(gram, rest, gram, beta=LINEAR)
            gram = multiply(half, half, rest, beta=LINEAR)
        if product is None:
            product = rest
            product.diagonal(dim1=-2, dim2=-1).add_(LINEAR)
        else:
            product = multiply(product, rest, product, beta=LINEAR)
    assert product is not None
    return product


def move_(weights: Tensor, directions: Tensor, keep: float, rate: float, dtype: torch.dtype) -> None:
    """Change matrices in place: keep x weights - rate x the directions made orthogonal.

    Args:
        weights: matrices [rows, columns] or [matrices, rows, columns].
        directions: as many of the same shape, in the same dtype.
        keep: share of the weights that stays.
        rate: length of each singular value of the step.
        dtype: of the iterations.
    """
    if weights.shape[-2] > weights.shape[-1]:
        weights, directions = weights.mT, directions.mT
    rows, columns = weights.shape[-2:]
    if columns > WIDE * rows and dtype == weights.dtype:
        gram = directions @ directions.mT
        # The trace is the square of the Frobenius norm.
        squares = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp_(min=LEAST_NORM**2)
        factor = newton_schulz_factor(gram / squares).mul_(squares.rsqrt())
        multiply_ = Tensor.addmm_ if weights.ndim == 2 else Tensor.baddbmm_
        multiply_(weights, factor, directions, beta=keep, alpha=-rate)
        return
    norms = torch.linalg.matrix_norm(directions, keepdim=True).clamp_(min=LEAST_NORM)
    made = newton_schulz((directions / norms).to(dtype))
    weights.mul_(keep).sub_(made.to(weights.dtype), alpha=rate)


def adjustment(rule: Adjustment, rows: int, columns: int) -> float:
    """Return by what the rate of a matrix is multiplied: so that its steps are as long as AdamW's, or as Jordan's."""
    if rule == "original":
        return math.sqrt(max(1.0, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))


def multiplication_dtype(precision: Precision, tensor: Tensor) -> torch.dtype:
    """Return in which dtype to iterate: auto is bfloat16 where the device computes in it, float64 stays."""
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "auto" and tensor.dtype != torch.float64 and computes_in_bfloat16(tensor.device):
        return torch.bfloat16
    return full_dtype(tensor.dtype)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Say whether a device multiplies matrices of bfloat16 faster than those of float32: it has instructions for it."""
    if device.type == "cpu":
        # Older versions of PyTorch do not tell: then float32 is right everywhere.
        able = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return device.type == "cuda"


class Muon(MatrixOptimizer):
    """Step hidden matrices along their momentum made orthogonal, and everything else by AdamW.

    b = mu b + (1 - mu) g; U = mu b + (1 - mu) g with nesterov, else b; O = U with all singular values near 1, by five
    Newton-Schulz iterations; p <- p (1 - lr wd) - lr a O. With `match_rms_adamw`, a = 0.2 sqrt(max(rows, columns)),
    steps are as long as AdamW's, and its rate and decay carry over; `original` is a = sqrt(max(1, rows / columns)), at
    a rate near 0.02.

    Hidden is a matrix that is no embedding and no head: of a group not named "embedding", and with no part of its name
    (between dots) that matches `others`. Names are known where named parameters are given, as
    `Muon(model.named_parameters())`; without names every matrix counts as hidden. Vectors, embeddings, heads and
    kernels of convolutions go to AdamW. Each group is split in two accordingly; a group's own `lr` or `weight_decay`
    holds for both. A hidden matrix takes 4 bytes of state per float32 parameter, any other parameter 8.

    Args:
        params: parameters, named parameters, or parameter groups.
        lr: learning rate of hidden matrices.
        momentum: decay of the average of gradients, per step.
        nesterov: look one step ahead along the momentum.
        weight_decay: share of a weight, times its rate, that is taken away in each step.
        adjust_lr: how the rate depends on the shape of a matrix.
        precision: of the iterations; auto: bfloat16 where the device computes in it, else float32.
        others: patterns, in lower case, of the parts of names that are not hidden.
        adamw_lr: learning rate of all other parameters; None: lr.
        adamw_betas: decay of their two moments, per step.
        adamw_weight_decay: their weight decay; None: weight_decay.
        maximize: ascend instead of descend.

    Raises:
        OptimizerError: a group asks for Muon for what is no matrix.

    Source: Jordan et al. 2024 (Muon) [impl]; Liu et al. 2025, arXiv 2502.16982 (match_rms_adamw) [paper].
    """

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 1e-3,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        weight_decay: NonNegativeFloat = 0.1,
        adjust_lr: Adjustment = "match_rms_adamw",
        precision: Precision = "auto",
        others: tuple[str, ...] = OTHERS,
        adamw_lr: PositiveFloat | None = None,
        adamw_betas: tuple[Beta, Beta] = (0.9, 0.95),
        adamw_weight_decay: NonNegativeFloat | None = None,
        maximize: bool = False,
    ) -> None:
        check_choice("adjust_lr", adjust_lr, get_args(Adjustment))
        check_choice("precision", precision, get_args(Precision))
        self.precision, self.others = precision, tuple(others)
        self._adamw = {
            "lr": lr if adamw_lr is None else adamw_lr,
            "weight_decay": weight_decay if adamw_weight_decay is None else adamw_weight_decay,
        }
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "adjust_lr": adjust_lr,
            "betas": adamw_betas,
        }
        super().__init__(params, defaults, maximize=maximize)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as one of hidden matrices and one of the rest, or whole to the `algorithm` that it names."""
        group = dict(param_group)
        members = group["params"]
        items = [members] if isinstance(members, Tensor) else list(members)
        if algorithm := group.get("algorithm"):
            self._add(group, items, algorithm)
            return
        hidden = [item for item in items if self._is_hidden(item, group.get("name", ""))]
        kept = {id(item) for item in hidden}
        rest = [item for item in items if id(item) not in kept]
        if hidden:
            self._add(group, hidden, "muon")
        if rest and hidden and "name" in group:
            group["name"] = f"{group['name']}_adamw"
        if rest or not hidden:
            self._add(group, rest, "adamw")

    def in_blocks(self, group: dict[str, Any]) -> list[Tensor]:
        """Return the parameters of a group that are stepped element by element: those of AdamW."""
        params: list[Tensor] = group["params"]
        return params if group["algorithm"] == "adamw" else []

    def in_batches(self, group: dict[str, Any]) -> list[Tensor]:
        """Return the parameters of a group that are made orthogonal: the hidden matrices."""
        params: list[Tensor] = group["params"]
        return params if group["algorithm"] == "muon" else []

    def initial_states(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        """Return a matrix's state before its first step."""
        return {"momentum_buffer": torch.zeros(param.shape, dtype=full_dtype(param.dtype), device=param.device)}

    def check(self, group: dict[str, Any]) -> None:
        """Raise OptimizerError for a hyper-parameter out of range, or for what is no matrix in a group of Muon."""
        super().check(group)
        algorithm = group["algorithm"]
        shapes = [tuple(p.shape) for p in group["params"] if p.ndim != 2] if algorithm == "muon" else []
        if shapes or algorithm not in ("muon", "adamw"):
            raise OptimizerError(
                f"Muon: a group with algorithm = {algorithm!r}",
                where=f"a parameter of shape {shapes[0]}" if shapes else "",
                why="only matrices can be made orthogonal" if shapes else "there are muon and adamw",
                do="leave algorithm out: each parameter then goes where it belongs",
            )

    def _is_hidden(self, item: Any, group_name: str) -> bool:
        name, tensor = ("", item) if isinstance(item, Tensor) else item
        if tensor.ndim != 2 or group_name == "embedding":
            return False
        return not any(fnmatchcase(part, pattern) for part in name.lower().split(".") for pattern in self.others)

    def _add(self, group: dict[str, Any], items: list[Any], algorithm: str) -> None:
        defaults = self._adamw if algorithm == "adamw" else {}
        super().add_param_group({**defaults, **group, "params": items, "algorithm": algorithm})

    def step_batch(self, batch: Batch, group: dict[str, Any]) -> None:
        """Step hidden matrices of one shape."""
        lr, share = float(group["lr"]), 1 - group["momentum"]
        gradients = batch.gradients(flip=group["maximize"])
        buffers = batch.states["momentum_buffer"].lerp_(gradients, share)
        directions = buffers.lerp(gradients, share) if group["nesterov"] else buffers
        weights = batch.weights()
        rate = lr * adjustment(group["adjust_lr"], *weights.shape[-2:])
        # One matrix alone is multiplied faster than a batch of one.
        one = weights[0] if len(weights) == 1 else weights
        dtype = multiplication_dtype(self.precision, batch.params[0])
        move_(one, directions.view_as(one), 1 - lr * group["weight_decay"], rate, dtype)
        batch.write(weights)


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise OptimizerError for a value that an option does not have."""
    if value not in allowed:
        raise OptimizerError(f"Muon: {option} = {value}", why=f"there are {', '.join(allowed)}")
