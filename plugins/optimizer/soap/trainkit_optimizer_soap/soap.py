"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import OptimizerError
from trainkit.optim.base import full_dtype
from trainkit.optim.batches import Batch
from trainkit.optim.checks import Beta
from trainkit.optim.matrices import MatrixOptimizer

States = Mapping[str, Tensor]


def along(x: Tensor, axis: int, matrices: Tensor) -> Tensor:
    """Return x with one axis multiplied by a matrix: x_i.. m_ij, summed over i.

    Args:
        x: tensors [n, ...].
        axis: which axis of a tensor, from 0.
        matrices: [n, d, d], for an axis of length d.
    """
    shape, length = x.shape, matrices.shape[-1]
    if axis == x.ndim - 2:
        return (x.reshape(len(x), -1, length) @ matrices).view(shape)
    before = math.prod(shape[1 : axis + 1])
    return (matrices.mT.unsqueeze(1) @ x.reshape(len(x), before, length, -1)).view(shape)


def rotated(x: Tensor, bases: Mapping[int, Tensor], *, back: bool = False) -> Tensor:
    """Return tensors [n, ...] in the bases of their axes, or from there `back`; an axis without a basis stays."""
    for axis, basis in bases.items():
        x = along(x, axis, basis.mT if back else basis)
    return x


def gram(x: Tensor, axis: int) -> Tensor:
    """Return the products of the slices of x [n, ...] along an axis: g g' for axis 0 of a matrix, g' g for axis 1."""
    flat = x.movedim(axis + 1, 1).flatten(2)
    return flat @ flat.mT


def eigenbasis(matrices: Tensor) -> Tensor:
    """Return the eigenvectors of symmetric matrices [n, d, d] as columns, those of the largest eigenvalues first."""
    try:
        vectors = torch.linalg.eigh(matrices).eigenvectors
    except torch.linalg.LinAlgError:
        # Ill-conditioned matrices can fail to converge in single precision.
        vectors = torch.linalg.eigh(matrices.double()).eigenvectors.to(matrices.dtype)
    return vectors.flip(-1)


def refreshed(matrices: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return a basis after one power iteration, and the order in which its columns now come.

    Args:
        matrices: symmetric matrices [n, d, d].
        basis: their eigenvectors of some steps ago, as columns [n, d, d].

    Returns:
        The new basis, columns in the order of their estimated eigenvalues, largest first; and that order [n, d].
    """
    powered = matrices @ basis
    order = (basis * powered).sum(-2).argsort(-1, descending=True)
    columns = powered.gather(-1, order.unsqueeze(-2).expand_as(powered))
    return torch.linalg.qr(columns).Q, order


class SOAP(MatrixOptimizer):
    """Run Adam in the eigenbasis of Shampoo's preconditioner, which turns slowly and is renewed every few steps.

    For a matrix: L and R are decaying averages of g g' and g' g, Ql and Qr their eigenvectors. g~ = Ql' g Qr;
    m = b1 m + (1 - b1) g~, v = b2 v + (1 - b2) g~^2; p <- p (1 - lr wd) - lr Ql (m^ / (sqrt(v^) + eps)) Qr', with ^ the
    bias correction. Ql and Qr are the eigenvectors at first, then one power iteration with QR every
    `precondition_frequency` steps; m turns with them, v follows the order of the columns. The first step of a matrix
    only begins L, R and the bases. Tensors with more axes have a basis for each axis; an axis longer than
    `max_precondition_dim` has none. A tensor without any basis, and every vector, is stepped by AdamW.

    State of a float32 matrix of n x m: 8 + 8 (n^2 + m^2) / (n m) bytes per parameter.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the first and of the second moment, per step.
        shampoo_beta: decay of the preconditioner, per step; None: the second of betas.
        eps: added to the denominator.
        weight_decay: share of a weight, times lr, that is taken away in each step.
        precondition_frequency: steps from one renewal of the bases to the next.
        max_precondition_dim: longest axis that has a basis.
        maximize: ascend instead of descend.

    Source: Vyas et al. 2024, arXiv 2409.11321 [paper]; the authors' code for the first step and the order of updates
        [impl].
    """

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat = 3e-3,
        betas: tuple[Beta, Beta] = (0.95, 0.95),
        shampoo_beta: Beta | None = None,
        eps: NonNegativeFloat = 1e-8,
        weight_decay: NonNegativeFloat = 1e-2,
        precondition_frequency: PositiveInt = 10,
        max_precondition_dim: Annotated[int, Field(ge=0)] = 10_000,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "shampoo_beta": shampoo_beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precondition_dim": max_precondition_dim,
        }
        super().__init__(params, defaults, maximize=maximize)

    def check(self, group: dict[str, Any]) -> None:
        """Raise OptimizerError where a hyper-parameter of a group is out of range."""
        super().check(group)
        beta, frequency, longest = (
            group[key] for key in ("shampoo_beta", "precondition_frequency", "max_precondition_dim")
        )
        if beta is not None and not 0 <= beta < 1:
            raise OptimizerError(
                f"SOAP: shampoo_beta = {beta}", why="shampoo_beta takes None, or a number of at least 0 and below 1"
            )
        if int(frequency) != frequency or frequency < 1:
            raise OptimizerError(
                f"SOAP: precondition_frequency = {frequency}",
                why="precondition_frequency takes a whole number of at least 1",
            )
        if int(longest) != longest or longest < 0:
            raise OptimizerError(
                f"SOAP: max_precondition_dim = {longest}", why="max_precondition_dim takes a whole number of at least 0"
            )

    def in_blocks(self, group: dict[str, Any]) -> list[Tensor]:
        """Return the parameters of a group that AdamW steps element by element: those without any basis."""
        return [p for p in group["params"] if not axes_of(p, group["max_precondition_dim"])]

    def in_batches(self, group: dict[str, Any]) -> list[Tensor]:
        """Return the parameters of a group that have a basis."""
        return [p for p in group["params"] if axes_of(p, group["max_precondition_dim"])]

    def initial_states(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        """Return the states of a tensor with bases before its first step."""
        return initial_states(param, group["max_precondition_dim"])

    def step_batch(self, batch: Batch, group: dict[str, Any]) -> None:
        """Step tensors of one shape."""
        states, gradients = batch.states, batch.gradients(flip=group["maximize"])
        axes = axes_of(batch.params[0], group["max_precondition_dim"])
        if batch.count > 1:
            self._move(batch, gradients, axes, group)
        beta = group["betas"][1] if group["shampoo_beta"] is None else group["shampoo_beta"]
        for axis in axes:
            # After the step, so that a gradient is never seen in a basis that was made from it.
            states[f"gram_{axis}"].lerp_(gram(gradients, axis), 1 - beta)
        if batch.count == 1:
            for axis in axes:
                states[f"basis_{axis}"].copy_(eigenbasis(states[f"gram_{axis}"]))
        elif (batch.count - 1) % group["precondition_frequency"] == 0:
            refresh(states, axes)

    def _move(self, batch: Batch, gradients: Tensor, axes: Sequence[int], group: dict[str, Any]) -> None:
        states, (beta1, beta2), lr = batch.states, group["betas"], float(group["lr"])
        bases = {axis: states[f"basis_{axis}"] for axis in axes}
        moves = batch.count - 1
        seen = rotated(gradients, bases)
        first = states["exp_avg"].lerp_(seen, 1 - beta1)
        second = states["exp_avg_sq"].mul_(beta2).addcmul_(seen, seen, value=1 - beta2)
        denominator = second.sqrt().div_(math.sqrt(1 - beta2**moves)).add_(group["eps"])
        weights = batch.weights()
        if group["weight_decay"]:
            weights.mul_(1 - lr * group["weight_decay"])
        weights.sub_(rotated(first / denominator, bases, back=True), alpha=lr / (1 - beta1**moves))
        batch.write(weights)


def axes_of(param: Tensor, longest: int) -> list[int]:
    """Return the axes of a parameter that have a basis: those not too long, of tensors with two axes or more."""
    return [axis for axis, length in enumerate(param.shape) if length <= longest] if param.ndim >= 2 else []


def initial_states(param: Tensor, longest: int) -> dict[str, Tensor]:
    """Return the states of a parameter with bases before its first step."""
    kind: dict[str, Any] = {"dtype": full_dtype(param.dtype), "device": param.device}
    states = {name: torch.zeros(param.shape, **kind) for name in ("exp_avg", "exp_avg_sq")}
    for axis in axes_of(param, longest):
        length = param.shape[axis]
        states[f"gram_{axis}"] = torch.zeros(length, length, **kind)
        states[f"basis_{axis}"] = torch.eye(length, **kind)
    return states


def refresh(states: States, axes: Sequence[int]) -> None:
    """Renew the bases in place; the first moment turns with them, the second follows the order of the columns."""
    first, second = states["exp_avg"], states["exp_avg_sq"]
    for axis in axes:
        basis = states[f"basis_{axis}"]
        renewed, order = refreshed(states[f"gram_{axis}"], basis)
        first.copy_(along(first, axis, basis.mT @ renewed))
        basis.copy_(renewed)
        index = order.view(len(order), *[-1 if a == axis else 1 for a in range(second.ndim - 1)])
        second.copy_(second.gather(axis + 1, index.expand_as(second)))
