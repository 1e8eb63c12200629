from __future__ import annotations

import pytest
import torch
from torch import nn
from trainkit import UsageError
from trainkit.testing import AdapterConformance
from trainkit_adapter_head.head import Head


class TestHead(AdapterConformance):
    component = "head"


class TestHeadByName(AdapterConformance):
    component = "head"
    options = {"patterns": ("0.*",)}


def learning(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_the_last_part_with_parameters_learns():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Dropout())
    assert learning(Head()(model)) == ["1.weight", "1.bias"]


def test_a_part_that_is_alone_is_entered():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    assert learning(Head()(model)) == ["0.1.weight", "0.1.bias"]
    assert learning(Head()(nn.Linear(2, 2))) == ["weight", "bias"]


def test_a_shared_weight_learns():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    model[1].weight = model[0].weight
    assert learning(Head()(model)) == ["0.weight", "1.bias"]
    assert learning(Head(("1.*",))(model)) == ["0.weight", "1.bias"]


def test_a_pattern_without_a_parameter_is_refused():
    with pytest.raises(UsageError, match=r"no parameter of the model matches 'lm_head\.\*'"):
        Head(("lm_head.*",))(nn.Sequential(nn.Linear(2, 2)))


def test_nothing_before_the_head_is_in_the_graph():
    model = Head()(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    assert not model[0](torch.ones(1, 2)).requires_grad
    assert model(torch.ones(1, 2)).requires_grad
