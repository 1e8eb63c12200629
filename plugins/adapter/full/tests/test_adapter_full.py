from __future__ import annotations

import torch
from trainkit.testing import AdapterConformance
from trainkit_adapter_full.full import Full


class TestFull(AdapterConformance):
    component = "full"


def test_all_weights_learn_also_those_that_were_fixed():
    model = torch.nn.Linear(2, 2).requires_grad_(False)
    assert Full()(model) is model
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_integers_stay_as_they_are():
    model = torch.nn.Linear(2, 2)
    model.table = torch.nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    assert not Full()(model).table.requires_grad
