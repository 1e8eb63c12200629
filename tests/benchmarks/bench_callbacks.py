"""What callbacks add to a step: a transformer of 10 million weights in 38 tensors, on one thread, in turn.

    python tests/benchmarks/bench_callbacks.py [ROUNDS]

`ema` stands beside PyTorch's AveragedModel and beside one lerp over a single tensor of all weights, which is what the
memory allows. `gradient-noise` stands beside normal_ on such a tensor. The step is forward and backward pass of 8 texts
of 32 tokens and AdamW. Medians over the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from trainkit_callback_ema.average import Average
from trainkit_callback_gradient_noise.gradient_noise import add_noise

WIDTH, LAYERS, CLASSES, TEXTS, TOKENS, DECAY = 512, 3, 1000, 8, 32, 0.999


def make_model() -> nn.Sequential:
    """Return the transformer."""
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, dropout=0.0, batch_first=True) for _ in range(LAYERS)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def jobs(model: nn.Module) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    weights = dict(model.named_parameters())
    count = sum(weight.numel() for weight in weights.values())
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-4)
    texts = torch.randn(TEXTS, TOKENS, WIDTH)
    average, peer = Average(), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    average.follow(weights)
    peer.update_parameters(model)
    flat, other = torch.randn(count), torch.randn(count)
    generator = torch.Generator()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(texts).square().mean().backward()
        optimizer.step()

    def noise() -> None:
        for place, weight in enumerate(weights.values()):
            generator.manual_seed(place)
            add_noise(weight.grad, 1e-3, generator, "row")

    return {
        "step": step,
        "ema": lambda: average.update(weights, DECAY),
        "AveragedModel": lambda: peer.update_parameters(model),
        "one lerp": lambda: flat.lerp_(other, 1 - DECAY),
        "gradient-noise": noise,
        "one normal_": lambda: flat.normal_(),
    }


def main(rounds: int) -> None:
    """Time all jobs in turn and print a table."""
    torch.set_num_threads(1)
    model = make_model()
    timed = jobs(model)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, job in timed.items():
            started = time.perf_counter()
            job()
            if number:
                times[name].append(1000 * (time.perf_counter() - started))
    medians = {name: statistics.median(found) for name, found in times.items()}
    weights = list(model.parameters())
    print(f"{sum(weight.numel() for weight in weights):,} weights in {len(weights)} tensors, {rounds} rounds")
    print(f"{'':<16}{'ms':>8}{'of a step':>12}")
    for name, median in medians.items():
        print(f"{name:<16}{median:>8.1f}{median / medians['step']:>12.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
