"""Annealed gradient noise: its variance, how it is drawn, and the callback that adds it before each update."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from trainkit import UsageError, hookimpl
from trainkit.randomness import Purpose, mixed
from trainkit.ranks.sharding import like, whole

if TYPE_CHECKING:
    from trainkit.live import Run
    from trainkit.outline import Course

Scale = Literal["row", "relative", "absolute"]
TAG = "train/gradient_noise"
# Noise that is so much longer than the gradient leaves nothing of its direction in a step.
MOST_OF_CLIP = 10.0
_log = logging.getLogger(__name__)


def deviation_at(step: int, eta: float, gamma: float) -> float:
    """Return sigma, the standard deviation after `step` updates: sigma^2 = eta / (1 + step)^gamma."""
    return math.sqrt(eta / (1 + step) ** gamma)


@torch.no_grad()
def add_noise(gradient: Tensor, deviation: float, generator: torch.Generator, scale: Scale) -> None:
    """Add N(0, deviation^2) to every element in place; nothing is read from the device.

    Args:
        gradient: of any shape, on the generator's device; noise for one of low precision is drawn in fp32.
        deviation: of the noise.
        generator: where the noise comes from.
        scale: what the deviation is measured in: root mean squares of the element's row (all that has the same first
            index) or of this gradient, or nothing.
    """
    precision = torch.promote_types(gradient.dtype, torch.float32)
    noise = torch.empty_like(gradient, dtype=precision).normal_(generator=generator)
    if scale == "absolute":
        gradient.add_(noise, alpha=deviation)
        return
    axes = tuple(range(1, gradient.ndim)) if scale == "row" and gradient.ndim > 1 else None
    norm = torch.linalg.vector_norm(gradient, dim=axes, keepdim=axes is not None, dtype=precision)
    elements = gradient.numel() // max(1, norm.numel())
    gradient.addcmul_(noise, norm, value=deviation / math.sqrt(max(1, elements)))


class GradientNoise:
    """Add normal noise to the gradients, whose variance fades with the steps.

    Once a step, after clipping, g <- g + N(0, sigma^2) with sigma^2 = eta / (1 + t)^gamma, t the updates so far. The
    noise of a weight is a function of the run's seed, of t and of the weight's place in the model alone: it does not
    depend on resumes, on what else is frozen, or on the rank. Weights without a gradient get none, and neither do
    parameters of the loss. sigma is logged as train/gradient_noise.

    Source: Neelakantan et al. 2015, arXiv 1511.06807. There the noise is absolute, so its norm grows with the root of
    the number of weights. `relative` [reading] measures it in root mean squares of each gradient instead, `row` [ours]
    in those of each row of it: what is seldom seen, as the row of a rare token in a table of embeddings, has a small
    gradient, in which the noise of the whole table would drown it.

    Args:
        eta: variance at the first step; the paper tries 0.01, 0.3 and 1.
        gamma: how fast the variance fades.
        scale: whether sigma is in root mean squares of each row of a gradient, of each gradient, or absolute.
    """

    def __init__(
        self,
        eta: PositiveFloat = 0.3,
        gamma: NonNegativeFloat = 0.55,
        scale: Scale = "row",
    ) -> None:
        self.eta, self.gamma = eta, gamma
        self.scale: Scale = scale

    def outline(self, course: Course) -> list[tuple[int, str]]:
        """Return the deviation of the noise at the begin, after a quarter and after half of the steps."""
        steps = dict.fromkeys((0, course.total_steps // 4, course.total_steps // 2))
        return [(step, f"sigma {deviation_at(step, self.eta, self.gamma):.2g}") for step in steps]

    def check_run(self, run: Run) -> None:
        """Refuse a model with sparse gradients: noise would make them dense."""
        for name, module in run.model.named_modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
                raise UsageError(
                    f"callback gradient-noise and the sparse gradients of {name} exclude each other",
                    where="callback",
                    why="noise on every element makes them dense",
                    do="leave out one of them: --callback no:gradient-noise, or an embedding with sparse=False",
                )

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Warn of absolute noise that drowns clipped gradients."""
        clip = run.settings.loop.clip
        if self.scale != "absolute" or clip is None:
            return
        count = sum(weight.numel() for weight in run.learnable.values() if weight.requires_grad)
        norm = deviation_at(run.moment.step, self.eta, self.gamma) * math.sqrt(count)
        if norm > MOST_OF_CLIP * clip:
            _log.warning(
                "gradient-noise: absolute noise on %d weights has a norm of %.3g, and gradients are clipped to %g; "
                "set callback.gradient-noise.scale=row, or a smaller eta",
                count,
                norm,
                clip,
            )

    @hookimpl
    def on_gradients(self, run: Run) -> None:
        """Add the noise of this step."""
        step, seed = run.moment.step, run.settings.seed
        deviation = deviation_at(step, self.eta, self.gamma)
        generator = torch.Generator(run.engine.device)
        for place, weight in enumerate(run.learnable.values()):
            if weight.grad is not None:
                generator.manual_seed(mixed(seed, Purpose.NOISE, step, place))
                # Of a sharded gradient each rank draws the noise of the whole.
                gradient = whole(weight.grad)
                add_noise(gradient, deviation, generator, self.scale)
                if gradient is not weight.grad:
                    weight.grad.copy_(like(gradient, weight.grad))
        run.record(TAG, deviation)
