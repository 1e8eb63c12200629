"""Checks of adapters: the model still works, something learns, and nothing else moves."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainkit.contracts import Merges, PartialWeights
from trainkit.storage.manifest import is_file_name
from trainkit.tasks import lacking

from .component import ComponentConformance


class AdapterConformance(ComponentConformance):
    """Check an adapter.

    Attributes:
        starts_as_identity: whether the adapted model begins with the outputs of the model.
    """

    kind = "adapter"
    starts_as_identity: ClassVar[bool] = True

    def model(self) -> nn.Module:
        """Return a fresh small model, the same each time; override it for an adapter that looks for certain layers."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))

    def inputs(self) -> Tensor:
        """Return a batch for that model."""
        return torch.linspace(-1, 1, 30).reshape(5, 6)

    def adapted(self) -> nn.Module:
        """Return the adapted model, in evaluation mode."""
        model: nn.Module = self.build()(self.model())
        return model.eval()

    def test_returns_a_module(self) -> None:
        """It answers with an nn.Module."""
        assert isinstance(self.adapted(), nn.Module)

    def test_something_learns(self) -> None:
        """At least one parameter asks for a gradient."""
        assert any(parameter.requires_grad for parameter in self.adapted().parameters())

    def test_outputs_keep_their_shape(self) -> None:
        """The adapted model answers in the shape of the model, and where declared with the very same values."""
        before, after = self.model().eval()(self.inputs()), self.adapted()(self.inputs())
        assert before.shape == after.shape
        if self.starts_as_identity:
            assert torch.allclose(before, after, atol=1e-6)

    def test_only_what_learns_moves(self) -> None:
        """A step of an optimizer over all parameters moves some that learn and none that do not."""
        model = self.adapted()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (model(self.inputs()) ** 2).sum().backward()
            optimizer.step()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert moved
        assert moved <= {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def test_takes_a_model_that_was_fixed(self) -> None:
        """What learns does not depend on how the model was marked before."""
        fixed = self.model().requires_grad_(False)
        adapted = self.build()(fixed)
        learns = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
        assert learns == {name for name, parameter in self.adapted().named_parameters() if parameter.requires_grad}

    def test_all_that_learns_is_stored(self) -> None:
        """An adapter that stores a part names all that learns, by the live tensors: what is written there is loaded."""
        if (found := self.powerful(PartialWeights, members=2)) is None:
            return
        adapter, model = found
        weights = adapter.weights(model)
        held = {id(tensor) for tensor in weights.values()}
        lost = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
        assert not lost, f"these learn and are not stored: {', '.join(lost)}"
        assert is_file_name(adapter.weights_file)
        assert adapter.weights_file.endswith(".safetensors")

    def test_a_merged_model_is_the_model_with_what_was_learned(self) -> None:
        """An adapter that merges gives a model with the names of the one that it was given, and the same outputs."""
        if (found := self.powerful(Merges, members=1)) is None:
            return
        adapter, model = found
        with torch.no_grad():
            for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
                generator = torch.Generator().manual_seed(number)
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
            before = model(self.inputs())
            merged = adapter.merged(model).eval()
            after = merged(self.inputs())
        assert list(merged.state_dict()) == list(self.model().state_dict())
        assert torch.allclose(before, after, atol=1e-5)

    def powerful(self, power: type[Any], members: int) -> tuple[Any, nn.Module] | None:
        """Return an adapter with an optional power and an adapted model; None where it lacks all of the power."""
        adapter = self.build()
        if missing := lacking(adapter, power):
            assert len(missing) == members, f"{power.__name__}: only {', '.join(missing)} is missing"
            return None
        model: nn.Module = adapter(self.model())
        return adapter, model.eval()
