"""Parts inside parts: built by name, table or object, and called by what they read."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import torch
from torch import Tensor, nn
from trainkit import LossOutput
from trainkit.binding import bind_loss
from trainkit.component import component_from_object
from trainkit.contracts import reading
from trainkit.errors import PluginError, UsageError
from trainkit.inner import Inner
from trainkit.nested import InnerLoss, built, call, reads_of
from trainkit.parts import Loader, described
from trainkit.registry import Registry


class Doubled(nn.Module):
    def __init__(self, main: InnerLoss = "cross-entropy", extra: str = "boxes") -> None:
        super().__init__()
        self.main = built("loss", main)
        required, optional = reads_of(self.main)
        self.reads, self.reads_optional = required, (*optional, extra)

    def forward(self, **values: Tensor) -> LossOutput:
        inner = call(self.main, values)
        return LossOutput(2 * inner.sum, inner.count, parts={name: (v, 1.0) for name, v in values.items()})


def values(*more: str) -> dict[str, Any]:
    return {
        "logits": torch.zeros(2, 3, 4),
        "labels": torch.tensor([[0, 1, -100], [3, -100, -100]]),
        **{name: torch.ones(2) for name in more},
    }


def test_a_name_a_table_a_class_and_an_object_become_live() -> None:
    assert built("loss", "cross-entropy").label_smoothing == 0.0
    assert built("loss", {"use": "cross-entropy", "label_smoothing": "0.2"}).label_smoothing == 0.2
    assert isinstance(built("loss", nn.MSELoss), nn.MSELoss)
    live = nn.MSELoss()
    assert built("loss", live) is live


def test_runtime_arguments_reach_an_inner_component() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    assert built("optimizer", {"use": "adamw", "lr": 0.5}, params=[parameter]).param_groups[0]["lr"] == 0.5


def test_what_cannot_be_built_says_so() -> None:
    with pytest.raises(PluginError, match="did you mean 'cross-entropy'"):
        built("loss", "cross-entropi")
    with pytest.raises(UsageError, match="label_smoothing"):
        built("loss", {"use": "cross-entropy", "label_smothing": 0.1})
    with pytest.raises(UsageError, match="an inner loss needs a name"):
        built("loss", {"label_smoothing": 0.1})
    with pytest.raises(PluginError, match="which is no loss"):
        built("loss", 3)


def test_a_wrapping_loss_reads_what_its_inner_one_reads() -> None:
    binding = bind_loss(Doubled(Doubled(extra="props")))
    assert binding.missing({"props", "boxes"}) == {"logits", "labels"}
    assert {name for _, name in binding.optional} == {"props", "boxes"}
    output = binding(values("boxes", "sources"))
    assert set(output.parts) == {"logits", "labels", "boxes"}
    assert torch.isclose(output.sum, 4 * 3 * torch.tensor(4.0).log())
    assert "boxes" not in binding.given({"logits", "labels"})(values("boxes")).parts


def test_own_parameters_beside_any_keyword_count_too() -> None:
    class Mixed(nn.Module):
        reads = ("labels", "logits")

        def forward(self, logits: Tensor, depth: Tensor, mask: Tensor | None = None, **rest: Tensor) -> Any:
            return logits, depth, mask, rest

    binding = bind_loss(Mixed())
    assert [name for _, name in binding.required] == ["labels", "logits", "depth"]
    assert [name for _, name in binding.optional] == ["mask"]
    assert binding({"labels": 1, "logits": 2, "depth": 3, "more": 4}) == (2, 3, None, {"labels": 1})


def test_a_scalar_is_the_mean_over_the_samples() -> None:
    output = call(reading(nn.MSELoss, "logits", "labels")(), {"labels": torch.zeros(5, 2), "logits": torch.ones(5, 2)})
    assert (float(output.sum), output.count) == (5.0, 5)
    with pytest.raises(UsageError, match="the loss answers with tuple"):
        call(lambda logits: (logits, logits), values())


class Inside(nn.Module):
    """Weigh a loss.

    Args:
        scale: what it is multiplied by.
        floor: least value.
    """

    def __init__(self, scale: float = 1.0, floor: float = 0.0) -> None:
        super().__init__()
        self.scale, self.floor = scale, floor


STANDING = {"use": Inside, "scale": 2.0}


class Beside(nn.Module):
    """Stand on a loss whose options are its own, too.

    Args:
        base: the loss.
        extra: a word.
    """

    def __init__(self, base: Annotated[Any, Inner("loss", beside=True)] = STANDING, extra: str = "none") -> None:
        super().__init__()
        self.base, self.extra = built("loss", base), extra


class TestOptionsBeside:
    @pytest.fixture
    def loader(self):
        return Loader(Registry(), {})

    def part(self, loader, **options):
        component = component_from_object("loss", Beside)
        return loader.checked(component, options).build()

    def test_they_stand_beside_those_of_the_outer_one_with_its_defaults(self, loader) -> None:
        made = self.part(loader)
        assert (made.base.scale, made.base.floor, made.extra) == (2.0, 0.0, "none")
        made = self.part(loader, floor="0.5", extra="word")
        assert (made.base.scale, made.base.floor, made.extra) == (2.0, 0.5, "word")

    def test_their_keys_are_those_of_the_outer_one(self, loader) -> None:
        with pytest.raises(UsageError, match=r"loss\.scale") as caught:
            self.part(loader, scale="big")
        assert "base" not in str(caught.value)
        with pytest.raises(UsageError, match=r"loss\.extre.*did you mean '?loss\.extra"):
            self.part(loader, extre="word")

    def test_another_base_takes_its_own_options(self, loader) -> None:
        component = component_from_object("loss", Beside)
        made = loader.checked(component, {"base.use": "cross-entropy", "label_smoothing": 0.25}).build()
        assert made.base.label_smoothing == 0.25

    def test_a_description_lists_them_with_the_defaults_in_force(self) -> None:
        rows = {row.name: row.default for row in described(component_from_object("loss", Beside), Registry())}
        assert rows == {"base": STANDING, "extra": "none", "scale": 2.0, "floor": 0.0}
