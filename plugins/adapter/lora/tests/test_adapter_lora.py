from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from trainkit import UsageError
from trainkit.testing import AdapterConformance
from trainkit_adapter_lora.layer import LoRALinear, merged_weight, scaling_of
from trainkit_adapter_lora.lora import LoRA, layers_of
from trainkit_adapter_lora.targets import chosen_layers, endings_of


class TestLoRA(AdapterConformance):
    component = "lora"


class TestDoRA(AdapterConformance):
    component = "lora"
    options = {"dora": True, "dropout": 0.0}


class TestLoRAWithAHeadThatLearns(AdapterConformance):
    component = "lora"
    options = {"modules_to_save": ("2",), "rslora": True}


class Attention(nn.Module):
    def __init__(self, *names):
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(4, 4))


class Model(nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList([Attention(*names), Attention(*names)])
        self.head = nn.Linear(4, 7, bias=False)


def learned(layer):
    """Return an adapted layer with a B as after some training."""
    with torch.no_grad():
        layer.lora_B.normal_(generator=torch.Generator().manual_seed(1))
        if layer.magnitude is not None:
            layer.magnitude.mul_(1.5)
    return layer


def layer(bias=True, **options):
    torch.manual_seed(0)
    return learned(LoRALinear(nn.Linear(5, 3, bias=bias), 2, 0.5, 0.0, **options))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5)])
def test_a_layer_is_its_formula(shape):
    adapted = layer()
    x = torch.randn(shape)
    by_hand = x @ adapted.base_layer.weight.T + adapted.bias + 0.5 * (x @ adapted.lora_A.T) @ adapted.lora_B.T
    torch.testing.assert_close(adapted(x), by_hand)


def test_gradients_are_those_of_the_formula():
    adapted, x = layer(), torch.randn(2, 4, 5, requires_grad=True)
    adapted.requires_grad_(False)
    adapted.lora_A.requires_grad_(True)
    adapted.lora_B.requires_grad_(True)
    adapted(x).square().sum().backward()
    found = [x.grad, adapted.lora_A.grad, adapted.lora_B.grad]
    a, b = (p.detach().clone().requires_grad_(True) for p in (adapted.lora_A, adapted.lora_B))
    again = x.detach().clone().requires_grad_(True)
    (again @ (adapted.base_layer.weight + 0.5 * b @ a).T + adapted.bias).square().sum().backward()
    torch.testing.assert_close(found, [again.grad, a.grad, b.grad])
    assert adapted.base_layer.weight.grad is None


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_merged_and_unmerged_agree(dora, bias):
    adapted, x = layer(bias, dora=dora).eval(), torch.randn(6, 5)
    before = adapted(x)
    linear = adapted.merge()
    assert type(linear) is nn.Linear
    torch.testing.assert_close(linear(x), before, rtol=1e-5, atol=1e-5)


def test_dora_brings_rows_to_their_lengths():
    merged = merged_weight(torch.randn(3, 5), torch.randn(2, 5), torch.randn(3, 2), 0.5, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(merged.norm(dim=1), torch.tensor([1.0, 2.0, 3.0]))


def test_scaling():
    assert scaling_of(32, 16) == 2
    assert scaling_of(32, 16, rslora=True) == 8


def test_half_precision_weights_have_adapters_in_single_precision():
    adapted = learned(LoRALinear(nn.Linear(5, 3).bfloat16(), 2, 0.5, 0.0))
    x = torch.randn(4, 5).bfloat16()
    assert adapted.lora_A.dtype == torch.float32
    assert adapted(x).dtype == torch.bfloat16
    wide = adapted.base_layer.weight.float() + 0.5 * adapted.lora_B @ adapted.lora_A
    torch.testing.assert_close(adapted(x).float(), x.float() @ wide.T + adapted.bias.float(), rtol=0.05, atol=0.05)


def test_autocast():
    adapted, x = layer(), torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = adapted(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), adapted(x), rtol=0.05, atol=0.05)


def test_dropout_is_on_in_training_only():
    adapted = LoRALinear(nn.Linear(50, 3), 2, 1.0, 0.5)
    learned(adapted)
    x = torch.ones(2, 50)
    assert not torch.equal(adapted(x), adapted(x))
    adapted.eval()
    assert torch.equal(adapted(x), adapted(x))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("q", "k", "v", "o"), {"q", "v"}),
        (("q_proj", "k_proj", "v_proj"), {"q_proj", "v_proj"}),
        (("query", "key", "value"), {"query", "value"}),
        (("query", "key_value", "out"), {"query", "key_value", "out"}),
    ],
)
def test_what_is_adapted_unless_it_is_named(names, expected):
    found = chosen_layers(Model(*names), ())
    assert {name.rpartition(".")[2] for name in found} == expected
    assert len(found) == 2 * len(expected)


def test_all_linear_layers_where_there_is_no_attention():
    assert list(chosen_layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))), ())) == ["0", "1.0"]


def test_named_targets():
    model = Model("q", "v", "frequency")
    assert len(chosen_layers(model, ("q",))) == 2
    assert list(chosen_layers(model, ("1.q", "head"))) == ["blocks.1.q", "head"]
    assert list(chosen_layers(model, ("blocks.*.q", "h??d"))) == ["blocks.0.q", "blocks.1.q", "head"]
    assert list(chosen_layers(model, ("blocks.[1-9].*",))) == ["blocks.1.q", "blocks.1.v", "blocks.1.frequency"]
    with pytest.raises(UsageError, match=r"no linear layer of the model is named 'decoder\.\*\.q'") as caught:
        chosen_layers(model, ("decoder.*.q",))
    assert "the first of them is blocks.0.q" in str(caught.value)
    with pytest.raises(UsageError, match="no linear layer of the model is named 'k_proj'") as caught:
        chosen_layers(model, ("k_proj",))
    assert "q, v, frequency, head" in str(caught.value)


def test_what_is_shared_is_no_target():
    model = Model("q", "v")
    model.head.weight = model.embed.weight
    assert "head" not in chosen_layers(model, ("q", "v"))
    with pytest.raises(UsageError, match="no linear layer"):
        chosen_layers(model, ("head",))
    model.again = model.blocks[0].q
    assert list(chosen_layers(model, ("q",))) == ["blocks.1.q"]
    with pytest.raises(UsageError, match="lora finds no linear layer"):
        chosen_layers(nn.Sequential(nn.Embedding(3, 2)), ())


@pytest.mark.parametrize("dora", [False, True])
def test_who_reads_the_weight_reads_the_sum_and_teaches_it(dora):
    adapted, x = layer(dora=dora).eval(), torch.randn(4, 5)
    read = nn.functional.linear(x, adapted.weight, adapted.bias)
    torch.testing.assert_close(read, adapted(x))
    found, expected = (
        torch.autograd.grad(outputs.square().sum(), [adapted.lora_A, adapted.lora_B]) for outputs in (read, adapted(x))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("training", [False, True])
def test_the_inner_layer_of_pytorch_s_attention_learns(training):
    attention = LoRA(dropout=0.0, targets=("out_proj",))(nn.ModuleDict({"it": nn.MultiheadAttention(4, 2)}))["it"]
    attention.train(training)
    x = torch.randn(3, 2, 4)
    attention(x, x, x)[0].square().sum().backward()
    assert bool((attention.out_proj.lora_B.grad != 0).any())


def test_the_layers_of_an_encoder_are_called_in_evaluation_too():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        before = model(x)
    adapted = LoRA(dropout=0.0)(model)
    for inner in layers_of(adapted).values():
        learned(inner)
    with torch.no_grad():
        assert not torch.allclose(adapted.eval()(x), before)


def test_names_that_say_which_layers_are_meant():
    model = Model("q", "v")
    assert endings_of(model, ["blocks.0.q", "blocks.1.q"]) == ["q"]
    assert endings_of(model, ["blocks.1.q"]) == ["blocks.1.q"]


def test_only_matrices_and_saved_modules_learn_and_are_stored():
    adapter = LoRA(r=2, modules_to_save=("head",))
    model = adapter(Model("q", "v"))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {f"blocks.{i}.{n}.lora_{m}" for i in (0, 1) for n in "qv" for m in "AB"} | {"head.weight"}
    held = {id(tensor) for tensor in adapter.weights(model).values()}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert adapter.summary() == {
        "trainable_parameters": 4 * 2 * 8 + 28,
        "share": pytest.approx((64 + 28) / (136 + 64), abs=1e-6),
        "base_parameters": 136,
        "layers": 4,
        "targets": ["q", "v"],
        "modules_to_save": ["head"],
        "unlearned": ["blocks.0.q", "blocks.0.v", "blocks.1.q", "blocks.1.v"],
    }
    with pytest.raises(UsageError, match="no module of the model is named 'tail'"):
        LoRA(modules_to_save=("tail",))(Model("q", "v"))


def test_a_second_adapter_is_refused():
    model = LoRA()(Model("q", "v"))
    with pytest.raises(UsageError, match="has an adapter of lora already"):
        LoRA()(model)


def test_a_merged_model_is_as_it_was_built():
    model = Model("q", "v")
    names = list(model.state_dict())
    before = copy.deepcopy(model.state_dict())
    adapter = LoRA(r=2)
    adapted = adapter(model)
    for inner in layers_of(adapted).values():
        learned(inner)
    merged = adapter.merged(adapted)
    assert list(merged.state_dict()) == names
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"blocks.{i}.{n}.weight" for i in (0, 1) for n in "qv"}
