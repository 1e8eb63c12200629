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
    return (magnitude / row_lengths(total)).unsqueeze(1) * total


def row_lengths(weight: Tensor) -> Tensor:
    """Return the length of each row, as a constant: it has no gradient [paper]."""
    return torch.linalg.vector_norm(weight.detach(), dim=1)


class LoRALinear(nn.Module):
    """Be a linear layer whose weight and bias stay, with A and B that learn: W x + b + s B A dropout(x).

    Code that reads `weight` instead of calling the layer, as PyTorch's attention does, gets the sum W + s B A, through
    which A and B learn as well; there is no dropout then.

    With DoRA the rows of the sum are scaled by magnitude / length, of which the length has no gradient [paper]. Dropout
    acts on the input of A alone [reading: peft drops out in the input of W, too, which takes another product with W].
    Without dropout, and in evaluation mode, the two are the same.

    Args:
        linear: the layer; it stays as it is.
        r: the rank.
        scaling: s.
        dropout: share of the inputs of A that is dropped.
        dora: whether the lengths of the rows learn, too.
    """

    def __init__(self, linear: nn.Linear, r: int, scaling: float, dropout: float, *, dora: bool = False) -> None:
        super().__init__()
        self.base_layer = linear
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scaling, self.dropout = scaling, dropout
        # Half precision is too coarse for what learns by small steps.
        dtype = torch.promote_types(linear.weight.dtype, torch.float32)
        device = linear.weight.device
        self.lora_A = nn.Parameter(torch.empty(r, linear.in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, r, device=device, dtype=dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        lengths = torch.linalg.vector_norm(linear.weight.detach().to(dtype), dim=1) if dora else None
        self.magnitude = None if lengths is None else nn.Parameter(lengths)

    @property
    def weight(self) -> Tensor:
        """Return the matrix that stands for all, [out, in]."""
        frozen = self.base_layer.weight
        merged = merged_weight(frozen.to(self.lora_A.dtype), self.lora_A, self.lora_B, self.scaling, self.magnitude)
        return merged.to(frozen.dtype)

    @property
    def bias(self) -> Tensor | None:
        """Return the bias of the layer."""
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] from x [..., in]."""
        flat = x.reshape(-1, self.in_features)
        dropped = functional.dropout(flat, self.dropout) if self.training and self.dropout else flat
        weight, bias = self.base_layer.weight, self.base_layer.bias
        if self.magnitude is not None:
            found = self._with_magnitude(flat, dropped)
        elif flat.dtype == weight.dtype == self.lora_A.dtype and not torch.is_autocast_enabled(flat.device.type):
            # One product added to the other in place: neither the update nor its scaled copy ever exists.
            found = functional.linear(flat, weight, bias)
            found.addmm_(functional.linear(dropped, self.lora_A), self.lora_B.t(), alpha=self.scaling)
        else:
            found = functional.linear(flat, weight, bias)
            found = found + self._update(dropped).to(found.dtype)
        return found.view(*x.shape[:-1], self.out_features)

    def _update(self, dropped: Tensor) -> Tensor:
        inner = functional.linear(dropped.to(self.lora_A.dtype), self.lora_A)
        return functional.linear(inner, self.lora_B) * self.scaling

    def _with_magnitude(self, flat: Tensor, dropped: Tensor) -> Tensor:
        assert self.magnitude is not None
        frozen = self.base_layer.weight
        lengths = row_lengths(frozen.to(self.lora_A.dtype) + self.scaling * (self.lora_B @ self.lora_A))
        plain = functional.linear(flat, frozen)
        found = (self.magnitude / lengths) * (plain + self._update(dropped))
        return (found if self.bias is None else found + self.bias).to(plain.dtype)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Write what was learned into the weight of the layer that this was made of, and return it."""
        self.base_layer.weight.copy_(self.weight)
        return self.base_layer

    def extra_repr(self) -> str:
        kind = ", dora" if self.magnitude is not None else ""
        return f"r={len(self.lora_A)}, scaling={self.scaling:g}, dropout={self.dropout}{kind}"
