"""Estimates of the diagonal of the curvature of a loss: Hutchinson's and Gauss-Newton-Bartlett's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trainkit.optim import OptimizerError

Noise = Literal["rademacher", "normal"]
Params = Sequence[Tensor]

ONCE_ONLY = ("not implemented", "differentiate twice", "double backward", "does not require grad")
REENTRANT = "CheckpointFunctionBackward"


def hutchinson(
    loss: Tensor, params: Params, noise: Noise = "rademacher", generator: torch.Generator | None = None
) -> list[Tensor]:
    """Return an unbiased estimate of the diagonal of a loss's Hessian: u * d<dL/dp, u>/dp.

    Both kinds of noise are unbiased; signs (Rademacher) have the lower variance. A parameter that the loss does not
    reach, or reaches linearly, has an estimate of 0. The graph of the loss is used up.

    Args:
        loss: a mean loss, computed within `twice_differentiable`.
        params: the parameters, of any shapes.
        noise: what u is drawn from: signs, or the normal distribution.
        generator: where it is drawn; PyTorch's own if not given.

    Raises:
        OptimizerError: an operation of the model cannot be differentiated twice, or is checkpointed reentrantly.

    Source: Hutchinson 1989; Liu et al. 2023, arXiv 2305.14342, algorithm 1 [paper].
    """
    refuse_reentrant(loss)
    with _second_derivative():
        gradients = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
        directions = [drawn_like(p, noise, generator) for p in params]
        pairs = [(g, u) for g, u in zip(gradients, directions, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in params]
        products = torch.autograd.grad([g for g, _ in pairs], params, [u for _, u in pairs], allow_unused=True)
    return [
        torch.zeros_like(p) if hu is None else u * hu for p, u, hu in zip(params, directions, products, strict=True)
    ]


def drawn_like(p: Tensor, noise: Noise, generator: torch.Generator | None = None) -> Tensor:
    """Return noise of mean 0 and variance 1, of a parameter's shape, dtype and device."""
    if noise == "normal":
        return torch.randn(p.shape, dtype=p.dtype, device=p.device, generator=generator)
    return torch.randint(0, 2, p.shape, dtype=p.dtype, device=p.device, generator=generator).mul_(2).sub_(1)


def gauss_newton_bartlett(
    logits: Tensor, params: Params, counted: Tensor | None = None, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Return an estimate of the Gauss-Newton diagonal of a mean cross-entropy: n * (d mean CE(logits, y~) / dp)^2.

    The labels y~ are drawn from the model itself, so that the estimate is unbiased and never negative. A parameter that
    the logits do not depend on has an estimate of 0. The graph of the logits is used up.

    Args:
        logits: [..., C]; every position is a choice among C classes.
        params: the parameters, of any shapes.
        counted: [...] bool, the positions that the loss counts; all if not given. n is their number.
        generator: where labels are drawn; PyTorch's own if not given.

    Raises:
        OptimizerError: a part of the model is checkpointed reentrantly.

    Source: Liu et al. 2023, arXiv 2305.14342, algorithm 2 [paper].
    """
    rows = logits.reshape(-1, logits.shape[-1]) if counted is None else logits[counted]
    count = len(rows)
    if not count:
        return [torch.zeros_like(p) for p in params]
    refuse_reentrant(rows)
    labels = torch.multinomial(rows.detach().float().softmax(-1), 1, generator=generator).squeeze(-1)
    gradients = torch.autograd.grad(cross_entropy(rows.float(), labels), params, allow_unused=True)
    return [torch.zeros_like(p) if g is None else count * g * g for p, g in zip(params, gradients, strict=True)]


def positions_that_count(logits: Tensor, loss: Tensor) -> Tensor:
    """Return at which positions [...] a loss looks at the logits [..., C]: those where it has a gradient.

    So padding, ignored labels and slots that a diffusion has not hidden are left out, whatever they are called. The
    graph of the loss stays.

    Raises:
        OptimizerError: the loss does not look at the logits, or is no likelihood under their softmax.
    """
    gradient = (
        torch.autograd.grad(loss, logits, retain_graph=True, allow_unused=True)[0] if loss.requires_grad else None
    )
    if gradient is None:
        raise _no_likelihood("the loss has no gradient with respect to the logits")
    # Softmax does not change when all logits of a position rise by as much, so their gradients add up to 0.
    slack = gradient.sum(-1).abs().sum()
    if bool(slack > 0.02 * gradient.abs().sum()):
        raise _no_likelihood("its gradient over the logits of a position does not add up to 0")
    return gradient.ne(0).any(-1)


@contextlib.contextmanager
def twice_differentiable(*modules: nn.Module) -> Iterator[None]:
    """Let a forward pass use only what can be differentiated twice: plain attention, and recurrence without cuDNN.

    Args:
        modules: what runs in the forward pass.

    Raises:
        OptimizerError: one of them is compiled: compiled code can be differentiated once.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    refuse_compiled(modules)
    recurrent = any(isinstance(inner, nn.RNNBase) for module in modules for inner in module.modules())
    flags: Any = torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with flags, sdpa_kernel(SDPBackend.MATH):
        yield


def refuse_compiled(modules: Sequence[nn.Module]) -> None:
    """Raise OptimizerError if one of the modules is compiled."""
    if any(getattr(inner, "_compiled_call_impl", None) is not None for m in modules for inner in m.modules()):
        raise OptimizerError(
            "sophia with estimator=hutchinson does not work with a compiled model",
            why="its curvature needs a second derivative, and what torch.compile makes has only the first",
            do="leave out loop.compile, or take --set optimizer.estimator=gauss-newton-bartlett",
        )


def refuse_reentrant(result: Tensor) -> None:
    """Raise OptimizerError if a part of what led to a result is checkpointed in the reentrant way.

    Such a part answers `.backward()` alone: a gradient that is asked for would silently leave out its parameters.
    """
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == REENTRANT:
            raise OptimizerError(
                "sophia does not work with reentrant checkpointing",
                why="what is checkpointed so answers .backward() alone, and a curvature must not touch the gradients",
                do="use torch.utils.checkpoint with use_reentrant=False, or leave out loop.gradient_checkpointing",
            )
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]


@contextlib.contextmanager
def _second_derivative() -> Iterator[None]:
    """Turn what autograd says about an operation without a second derivative into a message for users."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(words in text for words in ONCE_ONLY):
            raise
        raise OptimizerError(
            "sophia with estimator=hutchinson: this model or loss cannot be differentiated twice",
            why=text.splitlines()[0],
            do="compute the loss within twice_differentiable(model); where that does not help, as with custom "
            "kernels, take --set optimizer.estimator=gauss-newton-bartlett",
        ) from error


def _no_likelihood(why: str) -> OptimizerError:
    return OptimizerError(
        "sophia with estimator=gauss-newton-bartlett needs a loss that is a likelihood under the softmax of `logits`",
        why=why,
        do="take --set optimizer.estimator=hutchinson, which works for every smooth loss",
    )
