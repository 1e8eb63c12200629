"""Gated linear units and gated residual networks [paper 1912.09363, 4.1]."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout


def glorot(*layers: nn.Linear) -> None:
    """Begin layers as the published code does: Glorot-uniform weights [impl], biases of 0."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class Gate(nn.Module):
    """Drop, then answer (W5 x + b5) * sigmoid(W4 x + b4): [..., inputs] to [..., outputs].

    Args:
        inputs: width of what comes in.
        outputs: width of what goes out.
        dropout: share of what comes in that is dropped in training.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = Dropout(dropout)
        self.value_gate = nn.Linear(inputs, 2 * outputs)
        for half in self.value_gate.weight.chunk(2):
            nn.init.xavier_uniform_(half)
        nn.init.zeros_(self.value_gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.value_gate(self.drop(x)))


class GatedSkip(nn.Module):
    """Answer LayerNorm(skip + gate(x))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gate, self.norm = Gate(width, width, dropout), nn.LayerNorm(width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.norm(skip + self.gate(x))
        return out


class GatedResidual(nn.Module):
    """Bend an input as far as its gate lets it: LayerNorm(skip(a) + gate(W1 ELU(W2 a + W3 c + b2) + b1)).

    Args:
        inputs: width of a.
        hidden: width in between.
        outputs: width of the answer; where it is not that of a, the skip is a Linear.
        dropout: share of the gate's input that is dropped in training.
        context: width of c, or None where there is none.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float, context: int | None = None) -> None:
        super().__init__()
        self.enter, self.middle = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.context = None if context is None else nn.Linear(context, hidden, bias=False)
        self.skip = None if inputs == outputs else nn.Linear(inputs, outputs)
        self.gate, self.norm = Gate(hidden, outputs, dropout), nn.LayerNorm(outputs)
        glorot(self.enter, self.middle, *(layer for layer in (self.context, self.skip) if layer is not None))

    def forward(self, a: Tensor, c: Tensor | None = None) -> Tensor:
        """Return [..., outputs] of a [..., inputs] and c, which need only be broadcast to a."""
        return self.finish(self.enter(a), a if self.skip is None else self.skip(a), c)

    def finish(self, entered: Tensor, skip: Tensor, c: Tensor | None) -> Tensor:
        """Return the answer from W2 a + b2 and skip(a), for who has a shorter way to them."""
        if self.context is not None and c is not None:
            entered = entered + self.context(c)
        out: Tensor = self.norm(skip + self.gate(self.middle(F.elu(entered))))
        return out
