"""A frozen linear layer with low-rank matrices beside it, and what both together are as one matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def scaling_of(alpha: float, r: int, *, rslora: bool = False) -> float:
    """Return s, the factor of the product B A: alpha / r, with rsLoRA alpha / sqrt(r).

    Source: Hu et al. 2021, arXiv 2106.09685 [paper]; Kalajdzievski 2023, arXiv 2312.03732 [paper].
    """
    return alpha / math.sqrt(r) if rslora else alpha / r


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scaling: float, magnitude: Tensor | None = None) -> Tensor:
    """Return the one matrix that stands for all: W + s B A; with DoRA its rows brought to the lengths `magnitude`.

    Args:
        weight: W [out, in].
        a: A [r, in].
        b: B [out, r].
        scaling: s.
        magnitude: [out], the lengths of the rows, or None for LoRA.

    Source: arXiv 2106.09685 [paper]; Liu et al. 2024, arXiv 2402.09353 [paper].
    """
    total = weight + scaling * (b @ a)
    if magnitude is None:
        return total
    return (magnitude / torch.linalg.vector_norm(total, dim=1)).unsqueeze(1) * total


class LoRALinear(nn.Linear):
    """Be a linear layer whose weight and bias stay, with A and B that learn: W x + b + s B A dropout(x).

    With DoRA the sum of both matrix products is scaled row by row by magnitude / length, of which the length has no
    gradient [paper]; dropout acts on the input of A alone [reading: peft drops out in the input of W, too, which takes
    another product with W]. Without dropout, and in evaluation mode, the two are the same.

    Args:
        linear: the layer; its parameters are shared, and it is kept to be put back.
        r: the rank.
        scaling: s.
        dropout: share of the inputs of A that is dropped.
        dora: whether the lengths of the rows learn, too.
    """

    def __init__(self, linear: nn.Linear, r: int, scaling: float, dropout: float, *, dora: bool = False) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scaling, self.dropout = scaling, dropout
        # In a tuple, so that it is no part of this module.
        self.origin = (linear,)
        # Half precision is too coarse for what learns by small steps.
        dtype = torch.promote_types(linear.weight.dtype, torch.float32)
        place = {"device": linear.weight.device, "dtype": dtype}
        self.lora_A = nn.Parameter(torch.empty(r, linear.in_features, **place))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, r, **place))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        lengths = torch.linalg.vector_norm(linear.weight.detach().to(dtype), dim=1) if dora else None
        self.magnitude = None if lengths is None else nn.Parameter(lengths)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] from x [..., in]."""
        flat = x.reshape(-1, self.in_features)
        dropped = functional.dropout(flat, self.dropout) if self.training and self.dropout else flat
        if self.magnitude is not None:
            found = self._with_magnitude(flat, dropped)
        elif flat.dtype == self.weight.dtype == self.lora_A.dtype and not torch.is_autocast_enabled(flat.device.type):
            # One product added to the other in place: neither the update nor its scaled copy ever exists.
            found = functional.linear(flat, self.weight, self.bias)
            found.addmm_(functional.linear(dropped, self.lora_A), self.lora_B.t(), alpha=self.scaling)
        else:
            found = functional.linear(flat, self.weight, self.bias)
            found = found + self._update(dropped).to(found.dtype)
        return found.view(*x.shape[:-1], self.out_features)

    def _update(self, dropped: Tensor) -> Tensor:
        inner = functional.linear(dropped.to(self.lora_A.dtype), self.lora_A)
        return functional.linear(inner, self.lora_B) * self.scaling

    def _with_magnitude(self, flat: Tensor, dropped: Tensor) -> Tensor:
        assert self.magnitude is not None
        with torch.no_grad():
            weight = self.weight.to(self.lora_A.dtype)
            lengths = torch.linalg.vector_norm(weight + self.scaling * (self.lora_B @ self.lora_A), dim=1)
        plain = functional.linear(flat, self.weight)
        found = (self.magnitude / lengths) * (plain + self._update(dropped))
        found = found if self.bias is None else found + self.bias
        return found.to(plain.dtype)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Write what was learned into the weight of the layer that this was made of, and return it."""
        wide = self.weight.to(self.lora_A.dtype)
        merged = merged_weight(wide, self.lora_A, self.lora_B, self.scaling, self.magnitude)
        self.weight.copy_(merged)
        return self.origin[0]

    def extra_repr(self) -> str:
        kind = ", dora" if self.magnitude is not None else ""
        return f"{super().extra_repr()}, r={len(self.lora_A)}, scaling={self.scaling:g}, dropout={self.dropout}{kind}"
