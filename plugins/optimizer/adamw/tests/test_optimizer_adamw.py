from __future__ import annotations

import pytest
import torch
from trainkit.testing import OptimizerConformance
from trainkit_optimizer_adamw.adamw import AdamW, parameters_of, supports_fused

GRADIENTS = ([0.1, -0.2, 0.3], [-0.1, -0.1, 0.4])
AFTER_ONE = [0.989, -1.988, 2.987]
AFTER_TWO = [0.988537317, -1.976690205, 2.974039772]


class TestAdamW(OptimizerConformance):
    component = "adamw"


def test_published_values():
    point = torch.nn.Parameter(torch.tensor([1.0, -2, 3], dtype=torch.float64))
    optimizer = AdamW([point], lr=0.01, weight_decay=0.1)
    for gradient, expected in zip(GRADIENTS, (AFTER_ONE, AFTER_TWO), strict=True):
        point.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert point.tolist() == pytest.approx(expected, abs=1e-8)


def test_is_fused_on_the_cpu_and_multi_tensor_elsewhere():
    on_cpu, elsewhere = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2, device="meta"))
    assert AdamW([on_cpu]).defaults["fused"]
    other = AdamW([elsewhere]).defaults
    assert not other["fused"]
    assert other["foreach"]


def test_finds_parameters_however_they_are_passed():
    one, two = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    assert parameters_of([one, two]) == [one, two]
    assert parameters_of([("a", one)]) == [one]
    assert parameters_of([{"params": one}, {"params": [("b", two)]}]) == [one, two]
    assert AdamW(iter([one, two])).param_groups[0]["params"] == [one, two]


def test_integers_have_no_fused_kernel():
    assert not supports_fused([torch.zeros(1, dtype=torch.int8)])
