"""Adafactor: a second moment that is the product of a column and a row, and steps in proportion to the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim.optimizer import ParamsT
from trainkit.optim import Optimizer, OptimizerError
from trainkit.optim.base import closure_loss, full_dtype, plain_step
from trainkit.optim.batches import Batch, Batches
from trainkit.optim.checks import Beta

Dialect = Literal["torch", "transformers"]
RATE = {"torch": 1e-2, "transformers": 1.0}
EPS = {"torch": (None, 1e-3), "transformers": (1e-30, 1e-3)}
RELATIVE_ONLY = {"scale_parameter": True, "relative_step": True, "warmup_init": False, "beta1": None}


def floored_direction(g: Tensor, row: Tensor, col: Tensor, floor: float) -> Tensor:
    """Return g / sqrt(row col / mean(row)) with floors on mean and quotient: the dialect of torch.

    Args:
        g: gradients [..., rows, columns].
        row: means of squares over the columns [..., rows].
        col: means of squares over the rows [..., columns].
        floor: least value of mean(row), and of the square root.
    """
    scaled = row / row.mean(-1, keepdim=True).clamp_(min=floor)
    estimate = scaled.unsqueeze(-1) * col.unsqueeze(-2)
    return estimate.clamp_(min=floor * floor).rsqrt_().mul_(g)


def factored_direction(g: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Return g / sqrt(row col / mean(row)), shapes as in `floored_direction`; `row` and `col` hold no zeros."""
    scaled = (row / row.mean(-1, keepdim=True)).rsqrt_()
    return (g * scaled.unsqueeze(-1)).mul_(col.rsqrt().unsqueeze(-2))


def relative_rate(step: int, warmup: bool) -> float:
    """Return the rate at a step, from 1: at most 0.01 (in warm-up a millionth for each step), then 1 / sqrt(step)."""
    return min(1e-6 * step if warmup else 1e-2, 1 / math.sqrt(step))


class Adafactor(Optimizer):
    """Divide each gradient by its root mean square, kept for rows and columns alone; step in units of the weights.

    R and C are decaying means of g^2 over columns and rows, with the decay 1 - t^-0.8; V = R C / mean(R), in vectors a
    decaying mean of g^2; U = g / sqrt(V), shortened to a root mean square of `clip_threshold`;
    p <- p - rho max(eps2, RMS(p)) U. The state of a matrix of n x m takes n + m numbers.

    The dialect `torch` takes a rate: rho = min(lr, 1 / sqrt(t)). The dialect `transformers` sets its own, rho =
    min(0.01, 1 / sqrt(t)), and takes no scheduler, unless `relative_step` is False; a group's lr is then a factor on
    it, 1 at first.

    Args:
        params: parameters or parameter groups.
        lr: learning rate; 0.01 in the dialect `torch`, to be left out where the steps are relative.
        dialect: whose rules hold: those of torch.optim.Adafactor or of transformers.Adafactor.
        beta2_decay: exponent of the step in the decay of the second moment, at most 0.
        eps: least root of the second moment (torch; None: the precision of the dtype) or what is added to g^2
            (transformers, 1e-30); least root mean square by which a step is scaled, 0.001.
        clip_threshold: largest root mean square of U.
        weight_decay: share of a weight that is taken away in each step, times lr (torch) or the scaled rate
            (transformers).
        beta1: decay of a first moment of the updates; None: there is none. Dialect `transformers`.
        scale_parameter: scale steps by the root mean square of the weights. Dialect `transformers`.
        relative_step: set the rate by the step; False: take lr as it is. Dialect `transformers`.
        warmup_init: begin the relative rate at a millionth for each step. Dialect `transformers`.
        maximize: ascend instead of descend.

    Raises:
        OptimizerError: options that exclude each other, or that the dialect does not have.

    Source: Shazeer and Stern 2018, arXiv 1804.04235 [paper]; torch.optim.Adafactor, transformers.Adafactor [impl].
    """

    def __init__(
        self,
        params: ParamsT,
        lr: PositiveFloat | None = None,
        dialect: Dialect = "torch",
        beta2_decay: Annotated[float, Field(le=0)] = -0.8,
        eps: tuple[NonNegativeFloat | None, NonNegativeFloat] | None = None,
        clip_threshold: PositiveFloat = 1.0,
        weight_decay: NonNegativeFloat = 0.0,
        beta1: Beta | None = None,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        maximize: bool = False,
    ) -> None:
        special = {
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
            "beta1": beta1,
        }
        check_dialect(dialect, lr, special)
        self.dialect = dialect
        self.takes_scheduler = self.takes_rate = dialect == "torch" or not relative_step
        self._batches: dict[int, Batches] = {}
        numbers = {
            "lr": RATE[dialect] if lr is None else lr,
            "beta2_decay": beta2_decay,
            "eps": EPS[dialect] if eps is None else eps,
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
        }
        super().__init__(params, {**numbers, **special, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may set any number of its own, but not the rules of the other dialect."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for key, value in self.defaults.items():
            if key in RELATIVE_ONLY and group[key] != value:
                raise OptimizerError(
                    f"Adafactor: a parameter group has {key} = {group[key]}, the optimizer {value}",
                    why="the rules of all groups are the same",
                    do=f"set {key} for the optimizer, or build two optimizers",
                )
        if group["beta2_decay"] > 0:
            raise OptimizerError(
                f"Adafactor: beta2_decay = {group['beta2_decay']}", why="beta2_decay takes a number of at most 0"
            )
        if not group["clip_threshold"] > 0:
            raise OptimizerError(
                f"Adafactor: clip_threshold = {group['clip_threshold']}", why="clip_threshold takes a number above 0"
            )

    @plain_step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; return what the closure returned."""
        loss = closure_loss(closure)
        for number, group in enumerate(self.param_groups):
            if number not in self._batches:
                self._batches[number] = Batches(self.label, self.state, self._initial)
            for batch in self._batches[number].ready(group["params"]):
                batch.tick()
                self._step_batch(batch, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a saved state: tensors move to the parameter's device and keep the dtype they were saved in."""
        self._batches = {}
        super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = {}

    def _initial(self, param: Tensor) -> dict[str, Tensor]:
        shape, kind = param.shape, {"dtype": full_dtype(param.dtype), "device": param.device}
        if param.ndim < 2:
            states = {"exp_avg_sq": torch.zeros(shape, **kind)}
        else:
            states = {
                "exp_avg_sq_row": torch.zeros(shape[:-1], **kind),
                "exp_avg_sq_col": torch.zeros(shape[:-2] + shape[-1:], **kind),
            }
        if self.defaults["beta1"] is not None:
            states["exp_avg"] = torch.zeros(shape, **kind)
        return states

    def _step_batch(self, batch: Batch, group: dict[str, Any]) -> None:
        lr, step = float(group["lr"]), batch.count
        weights = batch.weights()
        direction = self._direction(batch, batch.gradients(flip=group["maximize"]), group)
        if self.dialect == "torch":
            rate, decay = min(lr, 1 / math.sqrt(step)), lr * group["weight_decay"]
        else:
            rate = lr * relative_rate(step, group["warmup_init"]) if group["relative_step"] else lr
            decay = rate * group["weight_decay"]
        scale = batch.root_mean_squares(weights).clamp_(min=group["eps"][1]) if group["scale_parameter"] else None
        clipped = (batch.root_mean_squares(direction) / group["clip_threshold"]).clamp_(min=1.0)
        factors = batch.spread(rate / clipped if scale is None else rate * scale / clipped)
        if decay and (scale is None or self.dialect == "torch"):
            weights.mul_(1 - decay)
        elif decay:
            weights.mul_(batch.spread(1 - decay * scale))
        if group["beta1"] is None:
            weights.addcmul_(direction, factors, value=-1)
        else:
            moment = batch.states["exp_avg"].lerp_(direction.mul_(factors), 1 - group["beta1"])
            weights.sub_(moment)
        batch.write(weights)

    def _direction(self, batch: Batch, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        share, floor = float(batch.count) ** group["beta2_decay"], group["eps"][0]
        if floor is None:
            floor = torch.finfo(batch.full).eps
        squares = gradient.square()
        if self.dialect == "transformers":
            squares.add_(floor)
        states = batch.states
        if "exp_avg_sq" in states:
            estimate = states["exp_avg_sq"].lerp_(squares, share)
            root = estimate.rsqrt() if self.dialect == "transformers" else estimate.clamp(min=floor * floor).rsqrt_()
            return root.mul_(gradient)
        row = states["exp_avg_sq_row"].lerp_(squares.mean(-1), share)
        col = states["exp_avg_sq_col"].lerp_(squares.mean(-2), share)
        if self.dialect == "transformers":
            return factored_direction(gradient, row, col)
        return floored_direction(gradient, row, col, floor)


def check_dialect(dialect: Dialect, lr: float | None, special: dict[str, Any]) -> None:
    """Raise OptimizerError for options that a dialect does not have, or that exclude each other."""
    if dialect not in RATE:
        raise OptimizerError(f"Adafactor: dialect = {dialect}", why=f"there are {' and '.join(RATE)}")
    if special["beta1"] is not None and not 0 <= special["beta1"] < 1:
        raise OptimizerError(
            f"Adafactor: beta1 = {special['beta1']}", why="beta1 takes None, or a number of at least 0 and below 1"
        )
    if dialect == "torch":
        for key, value in special.items():
            if value != RELATIVE_ONLY[key]:
                raise OptimizerError(
                    f"Adafactor: {key} = {value} in the dialect torch",
                    why=f"{key} belongs to the dialect transformers",
                    do=f"set dialect to transformers, or leave {key} out",
                )
    elif special["relative_step"] and lr is not None:
        raise OptimizerError(
            f"Adafactor: lr = {lr} with relative_step",
            why="relative steps set the rate by the step, so lr would have no effect",
            do="leave lr out, or set relative_step to False",
        )
    elif not special["relative_step"] and lr is None:
        raise OptimizerError(
            "Adafactor: relative_step = False without lr", why="nothing sets the rate", do="set lr, as 0.001"
        )
    elif special["warmup_init"] and not special["relative_step"]:
        raise OptimizerError(
            "Adafactor: warmup_init with relative_step = False",
            why="it is the beginning of the relative rate",
            do="leave warmup_init out, or let a scheduler warm up",
        )
