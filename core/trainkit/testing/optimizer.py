"""Checks of optimizers: they minimise, they resume to the bit, and they honour groups and dtypes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .component import ComponentConformance, plain, raises, same

FIRST = [1.0, -2.0, 3.0]


class OptimizerConformance(ComponentConformance):
    """Check an optimizer.

    Attributes:
        learning_rate: a rate at which it solves the test problems; its default where it has no option `lr`.
        steps: within how many steps it solves them.
    """

    kind = "optimizer"
    learning_rate: ClassVar[float] = 0.05
    steps: ClassVar[int] = 500

    def optimizer(self, params: Iterable[Any], lr: float | None = None) -> torch.optim.Optimizer:
        """Return a fresh optimizer, at a learning rate if it has one."""
        extra = {"lr": lr} if lr is not None and "lr" in self.option_names() else {}
        optimizer: torch.optim.Optimizer = self.build(extra, params=params)
        _switch(optimizer, "train")
        return optimizer

    def update(self, optimizer: torch.optim.Optimizer, objective: Callable[[], Tensor]) -> None:
        """Make one step; override it for an optimizer that needs more than a gradient."""
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()

    def minimise(self, params: list[nn.Parameter], objective: Callable[[], Tensor]) -> float:
        """Return the last value of an objective as a share of the first."""
        optimizer = self.optimizer(params, self.learning_rate)
        first = float(objective().detach())
        for _ in range(self.steps):
            self.update(optimizer, objective)
        _switch(optimizer, "eval")
        return float(objective().detach()) / first

    def test_is_a_torch_optimizer(self) -> None:
        """It is a torch.optim.Optimizer, so schedulers, scalers and tools take it."""
        assert isinstance(self.optimizer([_parameter(FIRST)]), torch.optim.Optimizer)

    def test_minimises_a_parabola(self) -> None:
        """It brings an ill-scaled parabola below a hundredth of its start."""
        point, scale = _parameter(FIRST), torch.tensor([1.0, 5.0, 0.2])
        assert self.minimise([point], lambda: (scale * (point - 1) ** 2).sum()) < 0.01

    def test_minimises_rosenbrock(self) -> None:
        """It brings Rosenbrock's curved valley below a hundredth of its start."""
        point = _parameter([-1.2, 1.0])
        assert self.minimise([point], lambda: (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2) < 0.01

    def test_learns_exclusive_or(self) -> None:
        """It teaches a small network what no line separates, to a hundredth of the first loss."""
        inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        labels = torch.tensor([0, 1, 1, 0])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        loss = nn.CrossEntropyLoss()
        assert self.minimise(list(model.parameters()), lambda: loss(model(inputs), labels)) < 0.01

    def test_resumes_to_the_bit(self) -> None:
        """5 steps, its state in a fresh optimizer, 5 more: the same weights as 10 steps, to the bit."""
        straight = _trajectory(self, steps=10)
        assert not same(straight, FIRST), "10 steps did not move the weights"
        assert same(straight, _trajectory(self, steps=10, interrupted_at=5))

    def test_state_is_plain(self) -> None:
        """Its state nests numbers, strings and tensors only, so nothing has to be unpickled."""
        point = _parameter(FIRST)
        optimizer = self.optimizer([point])
        self.update(optimizer, lambda: (point**2).sum())
        assert plain(optimizer.state_dict())

    def test_groups_have_their_own_learning_rates(self) -> None:
        """A group with a rate of 0 stays where it is while the other one moves."""
        fixed, moving = _parameter(FIRST), _parameter(FIRST)
        optimizer = self.optimizer([{"params": [fixed], "lr": 0.0}, {"params": [moving]}])
        for _ in range(3):
            self.update(optimizer, lambda: (fixed**2).sum() + (moving**2).sum())
        assert torch.equal(fixed.detach(), torch.tensor(FIRST))
        assert not torch.equal(moving.detach(), torch.tensor(FIRST))

    def test_groups_have_their_own_weight_decay(self) -> None:
        """Where it decays weights, a group without decay keeps its weights when all gradients are 0."""
        decaying, kept = _parameter(FIRST), _parameter(FIRST)
        groups = [{"params": [decaying], "weight_decay": 0.1}, {"params": [kept], "weight_decay": 0.0}]
        if "weight_decay" not in self.option_names():
            assert all("weight_decay" not in group for group in self.optimizer([decaying]).param_groups)
            return
        optimizer = self.optimizer(groups)
        for _ in range(3):
            self.update(optimizer, lambda: 0.0 * (decaying.sum() + kept.sum()))
        assert torch.equal(kept.detach(), torch.tensor(FIRST))
        assert bool((decaying.detach().abs() < torch.tensor(FIRST).abs()).all())

    def test_skips_what_has_no_gradient(self) -> None:
        """A parameter without a gradient is neither moved nor counted."""
        idle, busy = _parameter(FIRST), _parameter(FIRST)
        optimizer = self.optimizer([idle, busy])
        self.update(optimizer, lambda: (busy**2).sum())
        assert torch.equal(idle.detach(), torch.tensor(FIRST))
        assert not optimizer.state.get(idle)

    def test_keeps_dtypes(self) -> None:
        """Weights in double, single and half precision move and stay what they are."""
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            point = _parameter(FIRST, dtype)
            optimizer = self.optimizer([point], self.learning_rate)
            for _ in range(3):
                self.update(optimizer, lambda point=point: (point**2).sum())  # type: ignore[misc]
            assert point.dtype == dtype
            assert torch.isfinite(point).all()
            assert not torch.equal(point.detach(), torch.tensor(FIRST, dtype=dtype)), f"{dtype} did not move"

    def test_refuses_sparse_gradients(self) -> None:
        """A sparse gradient is refused, not misread."""
        table = nn.Embedding(4, 2, sparse=True)
        optimizer = self.optimizer(table.parameters())
        table(torch.tensor([1])).sum().backward()
        with raises(RuntimeError, ValueError, TypeError):
            optimizer.step()

    def test_survives_gradients_of_zero(self) -> None:
        """Gradients of exactly 0 leave the weights finite."""
        point = _parameter(FIRST)
        optimizer = self.optimizer([point])
        for _ in range(3):
            self.update(optimizer, lambda: 0.0 * point.sum())
        assert torch.isfinite(point).all()


def _parameter(values: list[float], dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def _switch(optimizer: torch.optim.Optimizer, mode: str) -> None:
    if hasattr(optimizer, mode):
        getattr(optimizer, mode)()


def _trajectory(kit: OptimizerConformance, steps: int, interrupted_at: int | None = None) -> list[Tensor]:
    point, matrix = _parameter(FIRST), _parameter([[0.5, -1.0], [2.0, 0.1]])  # type: ignore[list-item]
    optimizer = kit.optimizer([point, matrix])
    for step in range(steps):
        if step == interrupted_at:
            state = copy.deepcopy(optimizer.state_dict())
            point, matrix = (nn.Parameter(p.detach().clone()) for p in (point, matrix))
            optimizer = kit.optimizer([point, matrix])
            optimizer.load_state_dict(state)
        kit.update(optimizer, lambda p=point, m=matrix: ((p - 1) ** 2).sum() + (m.sin() ** 2).sum())  # type: ignore[misc]
    return [point.detach(), matrix.detach()]
