"""What an optimizer's step costs: trainkit's beside pytorch-optimizer's, torch's and transformers', on one thread.

Two lists of parameters: 1,000 tiny tensors (half vectors of 16 to 79 elements, half 8 x 8), and 300 tensors of a small
transformer with 9.8 million parameters. The contestants of a row take turns of four steps, so that a noisy machine is
noisy for all of them; the medians are compared. Then a table of equality (how far the fast forms are from the plain
formula after 50 steps) and one of the bytes of state for each parameter.

    python tests/benchmarks/bench_optimizers.py [ROUNDS] [NAME ...]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_optimizer
import torch
from torch import Tensor, nn
from trainkit.optim import ElementwiseOptimizer
from trainkit.registry import Registry
from trainkit.testing.elementwise import follow_formula, take_steps
from transformers.optimization import Adafactor as TransformersAdafactor

Params = list[nn.Parameter]
WIDTH, LAYERS, TINY, TURN, STEPS = 180, 25, 1000, 4, 50
NEVER = 10**9


def tiny_shapes() -> list[tuple[int, ...]]:
    """Return 1,000 shapes of vectors and small matrices."""
    return [(16 + (i * 7) % 64,) if i % 2 else (8, 8) for i in range(TINY)]


def large_shapes() -> list[tuple[int, ...]]:
    """Return the shapes of 25 transformer layers of width 180: 300 tensors, 9,778,500 parameters."""
    d = WIDTH
    matrices: list[tuple[int, ...]] = [(3 * d, d), (d, d), (4 * d, d), (d, 4 * d)]
    return [*matrices, (3 * d,), (4 * d,), *[(d,)] * 6] * LAYERS


def parameters(shapes: Iterable[tuple[int, ...]]) -> Params:
    """Return parameters with gradients, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for p in made:
        p.grad = 0.01 * torch.randn(p.shape, generator=generator)
    return made


def ours(name: str, **options: Any) -> Callable[[Params], torch.optim.Optimizer]:
    """Return how trainkit's optimizer of a name is made."""

    def make(params: Params) -> torch.optim.Optimizer:
        component = Registry().load("optimizer", name)
        optimizer: torch.optim.Optimizer = component.build(component.validate(options), params=params)
        if hasattr(optimizer, "train"):
            optimizer.train()
        return optimizer

    return make


def theirs(name: str, **options: Any) -> Callable[[Params], torch.optim.Optimizer]:
    """Return how pytorch-optimizer's optimizer of a name is made, with its own defaults but for the options."""

    def make(params: Params) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = getattr(pytorch_optimizer, name)(params, **options)
        if name == "SophiaH":
            # The first step would ask for a curvature, which needs a graph: it is given one.
            optimizer.step(hessian=[torch.ones_like(p) for p in params])
        if hasattr(optimizer, "train"):
            optimizer.train()
        return optimizer

    return make


def plain(kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[Params], torch.optim.Optimizer]:
    """Return how an optimizer of PyTorch or transformers is made."""
    return lambda params: kind(params, **options)


def matrices_only(make: Callable[[Params], torch.optim.Optimizer]) -> Callable[[Params], torch.optim.Optimizer]:
    """Return the same for optimizers that take no vectors."""
    return lambda params: make([p for p in params if p.ndim == 2])


ROWS: dict[str, dict[str, Callable[[Params], torch.optim.Optimizer]]] = {
    "adamw": {
        "trainkit": ours("adamw"),
        "pytorch-optimizer": theirs("AdamW"),
        "torch": plain(torch.optim.AdamW),
    },
    "sgd": {
        "trainkit": ours("sgd", momentum=0.9),
        "pytorch-optimizer": theirs("SGDW", lr=1e-3, momentum=0.9),
        "torch": plain(torch.optim.SGD, momentum=0.9),
    },
    "lion": {
        "trainkit": ours("lion", weight_decay=0.1),
        "trainkit compiled": ours("lion", weight_decay=0.1, compiled=True),
        "pytorch-optimizer": theirs("Lion", weight_decay=0.1),
    },
    "lamb": {
        "trainkit": ours("lamb"),
        "trainkit compiled": ours("lamb", compiled=True),
        "pytorch-optimizer": theirs("Lamb", weight_decay=0.01),
    },
    "adan": {
        "trainkit": ours("adan", weight_decay=0.02),
        "trainkit compiled": ours("adan", weight_decay=0.02, compiled=True),
        "pytorch-optimizer": theirs("Adan", weight_decay=0.02),
    },
    "sophia": {
        "trainkit": ours("sophia"),
        "trainkit compiled": ours("sophia", compiled=True),
        "pytorch-optimizer": theirs("SophiaH", update_period=NEVER),
    },
    "gpro": {"trainkit": ours("gpro"), "trainkit compiled": ours("gpro", compiled=True)},
    "schedule-free-adamw": {
        "trainkit": ours("schedule-free-adamw"),
        "trainkit compiled": ours("schedule-free-adamw", compiled=True),
        "pytorch-optimizer": theirs("ScheduleFreeAdamW"),
    },
    "prodigy": {"trainkit": ours("prodigy"), "pytorch-optimizer": theirs("Prodigy")},
    "adafactor": {
        "trainkit": ours("adafactor"),
        "pytorch-optimizer": theirs("AdaFactor"),
        "torch": plain(torch.optim.Adafactor),
        "transformers": plain(TransformersAdafactor),
    },
    "muon": {
        "trainkit": matrices_only(ours("muon")),
        "pytorch-optimizer": matrices_only(lambda params: theirs("Muon")([{"params": params, "use_muon": True}])),
        "torch": matrices_only(plain(torch.optim.Muon)),
    },
    "soap": {"trainkit": ours("soap"), "pytorch-optimizer": theirs("SOAP")},
}


def median_times(
    makers: Mapping[str, Callable[[Params], torch.optim.Optimizer]], shapes: Any, rounds: int
) -> dict[str, float]:
    """Return the median milliseconds of a step of each contestant; they take turns of a few steps."""
    steps = {name: make(parameters(shapes)).step for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(1 + rounds):
        for name, step in steps.items():
            for _ in range(TURN):
                started = time.perf_counter()
                step()
                if round_number:
                    times[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def print_speed(title: str, shapes: list[tuple[int, ...]], rounds: int, names: list[str]) -> None:
    """Print one row for each optimizer: milliseconds, and how many times faster trainkit is."""
    print(f"\n### {title}, ms for a step (median of {rounds * TURN}), and the peer's time over ours\n")
    peers = ["pytorch-optimizer", "torch", "transformers"]
    print("| optimizer | trainkit | compiled | " + " | ".join(peers) + " |")
    print("| --- " * (3 + len(peers)) + "|")
    for name in names:
        times = median_times(ROWS[name], shapes, rounds)
        own, compiled = times["trainkit"], times.get("trainkit compiled")
        cells = [name, f"{own:.2f}", "" if compiled is None else f"{compiled:.2f}"]
        for peer in peers:
            if peer not in times:
                cells.append("")
                continue
            ratio = f"{times[peer] / own:.1f}x"
            if compiled is not None:
                ratio += f", compiled {times[peer] / compiled:.1f}x"
            cells.append(f"{times[peer]:.2f} ({ratio})")
        print("| " + " | ".join(cells) + " |", flush=True)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all state tensors that grow with the parameters."""

    def tensors(value: Any) -> Iterable[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from tensors(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from tensors(item)

    found = {id(t): t for state in optimizer.state.values() for t in tensors(state) if t.ndim}
    return sum(t.numel() * t.element_size() for t in found.values())


def print_memory(names: list[str]) -> None:
    """Print the bytes of state for each float32 parameter, on the large list."""
    print("\n### State, bytes for each float32 parameter (large list, after a step)\n")
    print("| optimizer | trainkit | peers |\n| --- | --- | --- |")
    for name in names:
        cells = {}
        for contestant, make in ROWS[name].items():
            if contestant == "trainkit compiled":
                continue
            optimizer = make(parameters(large_shapes()))
            optimizer.step()
            count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
            cells[contestant] = state_bytes(optimizer) / count
        own = cells.pop("trainkit")
        print(
            f"| {name} | {own:.2f} | {', '.join(f'{peer} {value:.2f}' for peer, value in cells.items())} |", flush=True
        )


def print_equality(names: list[str]) -> None:
    """Print the largest distance of a weight from the plain formula's, in shares of the tensor's largest weight."""
    shapes = [(5,), (16,), (8, 8), (3, 4), (7, 4), (70_001,), (300, 200)]
    print(f"\n### Distance from the plain formula after {STEPS} steps in float32, relative\n")
    print("| optimizer | in place | compiled |\n| --- | --- | --- |")
    for name in names:
        cells = [name]
        for contestant in ("trainkit", "trainkit compiled"):
            if contestant not in ROWS[name]:
                continue
            params = parameters(shapes)
            optimizer = ROWS[name][contestant](params)
            if not isinstance(optimizer, ElementwiseOptimizer) or not hasattr(type(optimizer), "formula"):
                continue
            generator = torch.Generator().manual_seed(1)
            rows = [[torch.randn(p.shape, generator=generator) for p in params] for _ in range(STEPS)]

            def gradient(p: Tensor, step: int, number: int, rows: list[list[Tensor]] = rows) -> Tensor:
                return rows[step][number]

            expected = follow_formula(optimizer, params, STEPS, gradient)
            take_steps(optimizer, params, STEPS, gradient=gradient)
            apart = [(p.detach() - e).abs().max() / e.abs().max() for p, e in zip(params, expected, strict=True)]
            cells.append(f"{max(float(value) for value in apart):.1e}")
        if len(cells) > 1:
            print("| " + " | ".join([*cells, ""][:3]) + " |", flush=True)


def main() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    names = sys.argv[2:] or list(ROWS)
    print(f"torch {torch.__version__}, pytorch-optimizer {version('pytorch-optimizer')}, one thread")
    print_speed("1,000 tiny tensors", tiny_shapes(), rounds, names)
    print_speed("300 tensors, 9.8 million parameters", large_shapes(), rounds, names)
    print_equality(names)
    print_memory(names)


if __name__ == "__main__":
    main()
