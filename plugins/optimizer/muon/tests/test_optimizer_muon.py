from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from trainkit.compose import parameter_groups
from trainkit.optim import OptimizerError
from trainkit.testing import OptimizerConformance
from trainkit_optimizer_muon.muon import (
    Muon,
    adjustment,
    computes_in_bfloat16,
    move_,
    multiplication_dtype,
    newton_schulz,
    newton_schulz_factor,
)

GRADIENT = [[0.1, -0.2, 0.3], [0.4, -0.5, 0.6]]
ORTHOGONAL = [[-0.568290, -0.057742, 0.683774], [0.563355, -0.405613, 0.247871]]
SHAPES = [(8, 8), (8, 8), (20, 30), (30, 20), (10, 40), (10, 40), (40, 10), (300, 200)]


class TestMuon(OptimizerConformance):
    component = "muon"
    # Two optimizers in one: what AdamW needs of its own comes on top.
    most_options = 11


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    # A transposed parameter does not lie as its shape says.
    params.append(nn.Parameter(torch.randn(60, 20, generator=generator).to(dtype).t()))
    return params


def trained(make, steps=20, dtype=torch.float32, params=None):
    params = parameters(dtype) if params is None else params
    optimizer = make(params)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()
    return params, optimizer


def apart(params, others):
    return max(
        float((p - q).detach().abs().max() / q.detach().abs().max()) for p, q in zip(params, others, strict=True)
    )


def orthogonal(g):
    return newton_schulz(g / g.norm())


def test_published_values_of_the_iterations():
    g = torch.tensor(GRADIENT, dtype=torch.float64)
    found = orthogonal(g)
    assert torch.allclose(found, torch.tensor(ORTHOGONAL, dtype=torch.float64), rtol=0, atol=1e-6)
    assert torch.linalg.svdvals(found).tolist() == pytest.approx([0.9204, 0.7000], abs=1e-4)
    # The length of the gradient has no effect.
    assert torch.allclose(orthogonal(1000 * g), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("columns", [3, 6])
def test_published_values_of_a_step(transposed, columns):
    g = torch.cat([torch.tensor(GRADIENT, dtype=torch.float64)] * (columns // 3), dim=1)
    expected = orthogonal(g)
    matrix = nn.Parameter(torch.zeros(2, columns, dtype=torch.float64))
    if transposed:
        g, expected, matrix = g.mT, expected.mT, nn.Parameter(matrix.detach().mT.clone())
    matrix.grad = g.clone()
    Muon([matrix], lr=0.1, adjust_lr="original").step()
    rate = 0.1 * math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
    assert torch.allclose(matrix.detach(), -rate * expected, rtol=0, atol=1e-12)


def test_the_factor_of_wide_matrices_equals_the_iterations():
    generator = torch.Generator().manual_seed(0)
    gauss = torch.randn(20, 100, generator=generator, dtype=torch.float64)
    u, _, v = torch.linalg.svd(gauss, full_matrices=False)
    ill = (u * torch.logspace(0, -7, 20, dtype=torch.float64)) @ v
    for matrix, single in ((gauss, 1e-5), (ill, 5e-3)):
        x = matrix / matrix.norm()
        expected = newton_schulz(x)
        assert torch.allclose(newton_schulz_factor(x @ x.mT) @ x, expected, rtol=0, atol=1e-8 * expected.abs().max())
        x = x.float()
        error = (newton_schulz_factor(x @ x.mT) @ x - expected).abs().max()
        assert error <= single * expected.abs().max()


def test_all_singular_values_are_brought_near_one():
    matrix = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_equals_torch_in_single_precision(adjust, nesterov, monkeypatch):
    ours, _ = trained(lambda params: Muon(params, lr=0.01, nesterov=nesterov, adjust_lr=adjust, precision="float32"))
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    theirs, _ = trained(lambda params: torch.optim.Muon(params, lr=0.01, nesterov=nesterov, adjust_lr_fn=adjust))
    assert apart(ours, theirs) <= 1e-6


def test_equals_torch_in_bfloat16():
    # Rounding to 8 bits is amplified by the iterations: the two agree to a few per cent of a step.
    start = parameters()
    ours, _ = trained(lambda params: Muon(params, lr=0.01, weight_decay=0.0, precision="bfloat16"), steps=1)
    theirs, _ = trained(
        lambda params: torch.optim.Muon(params, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), steps=1
    )
    for p, q, before in zip(ours, theirs, start, strict=True):
        assert (p - q).detach().norm() <= 0.05 * (q - before).detach().norm()


def test_iterates_in_the_precision_that_was_asked_for(monkeypatch):
    single, double, half = (torch.zeros(2, dtype=dtype) for dtype in (torch.float32, torch.float64, torch.float16))
    able = [
        ({"avx512_f": True}, torch.float32),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
    ]
    for capabilities, auto in able:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert multiplication_dtype("auto", single) == multiplication_dtype("auto", half) == auto
        assert multiplication_dtype("float32", single) == torch.float32
        assert multiplication_dtype("auto", double) == multiplication_dtype("float32", double) == torch.float64
        assert multiplication_dtype("bfloat16", single) == torch.bfloat16
    assert computes_in_bfloat16(torch.device("cuda"))


def test_a_step_is_as_long_as_the_rule_says():
    assert adjustment("original", 30, 120) == 1.0
    assert adjustment("original", 120, 30) == 2.0
    assert adjustment("match_rms_adamw", 30, 100) == pytest.approx(2.0)
    # As long as AdamW's steps: a root mean square of about 0.2.
    matrix = torch.zeros(64, 256)
    move_(matrix, torch.randn(64, 256, generator=torch.Generator().manual_seed(0)), 1.0, 0.2 * 16.0, torch.float32)
    assert 0.15 < float(matrix.square().mean().sqrt()) < 0.25


def network():
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(10, 4),
            "odd": nn.Embedding(10, 4),
            "body": nn.Linear(4, 6),
            "conv": nn.Conv1d(2, 2, 3),
            "lm_head": nn.Linear(4, 10, bias=False),
            "multihead_attn": nn.Linear(4, 4, bias=False),
        }
    )


def names_by_algorithm(optimizer):
    found = {"muon": [], "adamw": []}
    for group in optimizer.param_groups:
        found[group["algorithm"]] += group["param_names"]
    return found


def test_hidden_matrices_are_told_apart_by_shape_name_and_class():
    net = network()
    split = names_by_algorithm(Muon(net.named_parameters()))
    assert split["muon"] == ["odd.weight", "body.weight", "multihead_attn.weight"]
    assert split["adamw"] == ["embed.weight", "body.bias", "conv.weight", "conv.bias", "lm_head.weight"]
    groups = parameter_groups(dict(net.named_parameters()), nn.Module(), net)
    optimizer = Muon(groups, weight_decay=0.3, adamw_lr=1e-4)
    split = names_by_algorithm(optimizer)
    assert split["muon"] == ["body.weight", "multihead_attn.weight"]
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("decay", 1e-3, 0.3),
        ("decay_adamw", 1e-4, 0.3),
        ("embedding", 1e-4, 0.3),
        ("no_decay", 1e-4, 0.0),
    ]
    own = names_by_algorithm(Muon(net.named_parameters(), others=("body",)))["muon"]
    assert own == ["embed.weight", "odd.weight", "lm_head.weight", "multihead_attn.weight"]


def test_the_rest_is_stepped_by_adamw():
    def others():
        generator = torch.Generator().manual_seed(3)
        shapes = [(5,), (16,), (4, 3, 3), (50_001,), (8, 8)]
        params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        return [*params, nn.Parameter(torch.randn(6, 4, generator=generator).t())]

    ours, _ = trained(
        lambda params: Muon(
            [{"params": params, "algorithm": "adamw"}], adamw_lr=0.01, adamw_betas=(0.8, 0.9), adamw_weight_decay=0.2
        ),
        steps=50,
        params=others(),
    )
    theirs, _ = trained(
        lambda params: torch.optim.AdamW(params, lr=0.01, betas=(0.8, 0.9), weight_decay=0.2), steps=50, params=others()
    )
    assert apart(ours, theirs) <= 1e-6


def test_a_rate_or_decay_of_a_group_holds_for_all_of_it():
    groups = [{"params": [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))], "lr": 0.5, "weight_decay": 0.0}]
    optimizer = Muon(groups, adamw_lr=1e-4)
    assert [(g["algorithm"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("muon", 0.5, 0.0),
        ("adamw", 0.5, 0.0),
    ]


def test_state_is_a_momentum_for_matrices_and_two_moments_for_the_rest():
    vector = nn.Parameter(torch.ones(4))
    params, optimizer = trained(lambda params: Muon(params), steps=1, params=[*parameters(), vector])
    for p in params:
        names = {"step", "exp_avg", "exp_avg_sq"} if p is vector else {"step", "momentum_buffer"}
        assert set(optimizer.state[p]) == names
        assert all(value.shape == p.shape for name, value in optimizer.state[p].items() if name != "step")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_state_in_full(dtype):
    params, optimizer = trained(lambda params: Muon(params, lr=0.01), steps=3, dtype=dtype)
    assert all(p.dtype == dtype for p in params)
    assert all(state["momentum_buffer"].dtype == torch.float32 for state in optimizer.state.values())
    full, _ = trained(lambda params: Muon(params, lr=0.01), steps=3)
    assert apart([p.float() for p in params], full) <= 0.02


def test_a_matrix_that_begins_late_moves_as_one_that_begins_early():
    early, late = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    optimizer = Muon([early, late], lr=0.1)
    rows = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    seen = []
    for step in range(5):
        early.grad, late.grad = rows[step], rows[step - 2] if step >= 2 else None
        optimizer.step()
        seen.append((early.detach().clone(), late.detach().clone()))
    assert torch.allclose(seen[4][1], seen[2][0], rtol=0, atol=1e-6)
    assert [float(optimizer.state[p]["step"]) for p in (early, late)] == [5, 3]


def test_resumes_to_the_bit_in_all_groups():
    straight, _ = trained(lambda params: Muon(params), steps=10, params=[*parameters(), nn.Parameter(torch.ones(5))])
    params = [*parameters(), nn.Parameter(torch.ones(5))]
    optimizer = Muon(params)
    generator = torch.Generator().manual_seed(1)
    for step in range(10):
        if step == 5:
            state = copy.deepcopy(optimizer.state_dict())
            params = [nn.Parameter(p.detach().clone()) for p in params]
            optimizer = Muon(params)
            optimizer.load_state_dict(state)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, straight, strict=True))


def test_ascends_on_request_and_takes_a_rate_that_is_a_tensor():
    up, _ = trained(lambda params: Muon(params, weight_decay=0.0, maximize=True), steps=1)
    down, _ = trained(lambda params: Muon(params, weight_decay=0.0, lr=torch.tensor(1e-3)), steps=1)
    for p, q, before in zip(up, down, parameters(), strict=True):
        assert torch.allclose(p - before, before - q, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr = -1.0"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"adamw_betas": (0.9, 1.0)}, "betas = "),
        ({"adamw_lr": -1.0}, "lr = -1.0"),
        ({"adjust_lr": "none"}, "adjust_lr = none"),
        ({"precision": "float16"}, "precision = float16"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(OptimizerError, match=text):
        Muon([nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))], **options)


def test_refuses_to_make_a_vector_orthogonal():
    with pytest.raises(OptimizerError, match="only matrices can be made orthogonal"):
        Muon([{"params": [nn.Parameter(torch.ones(3))], "algorithm": "muon"}])
    with pytest.raises(OptimizerError, match="there are muon and adamw"):
        Muon([{"params": [nn.Parameter(torch.ones(3))], "algorithm": "sgd"}])
