"""Parts inside parts in a whole run: names and options by key, refusals, records, resumption."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import trainkit
from torch import nn
from trainkit import hookimpl
from trainkit.api import resume, start
from trainkit.config import layer_of, merged
from trainkit.documents import asked_for, components_of
from trainkit.draft import make_draft
from trainkit.errors import PluginError, TrainkitError, UsageError
from trainkit.nested import InnerLoss, built, call, reads_of
from trainkit.registry import Registry
from trainkit.request import Request
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run

LOSSES = '''
from typing import Annotated, Any

from torch import nn
from trainkit import LossOutput, hookimpl
from trainkit.nested import Inner, InnerLoss, built, call, reads_of


class Scaled(nn.Module):
    """Scale another loss.

    Args:
        main: the loss that is scaled.
        factor: by how much.
    """

    def __init__(self, main: InnerLoss = "cross-entropy", factor: float = 2.0) -> None:
        super().__init__()
        self.main, self.factor = built("loss", main), factor
        self.reads, self.reads_optional = reads_of(self.main)

    def forward(self, **values):
        inner = call(self.main, values)
        return LossOutput(self.factor * inner.sum, inner.count, parts=inner.parts)


class Plain(nn.Module):
    """Weigh the squares of the logits.

    Args:
        weight: of them.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits):
        return self.weight * logits.square().mean()


class Maybe(nn.Module):
    """Take a loss, or none."""

    def __init__(self, main: InnerLoss, other: InnerLoss | None = None) -> None:
        super().__init__()
        self.main, self.other = main, other
        self.reads, self.reads_optional = reads_of(main)

    def forward(self, **values):
        return call(self.main, values)


class Endless(Scaled):
    """Hold itself."""

    def __init__(self, main: InnerLoss = "./losses.py:Endless") -> None:
        super().__init__(main)


class Both:
    """Two changes of a sample, one after the other.

    Args:
        first: the first of them.
    """

    reads = frozenset({"tokens"})

    def __init__(self, first: Annotated[Any, Inner("augmenter")] = "./losses.py:Nothing") -> None:
        self.first = first

    def __call__(self, sample, generator):
        return self.first(sample, generator)


class Nothing:
    """Change nothing.

    Args:
        amount: how much of it.
    """

    reads = frozenset({"tokens"})

    def __init__(self, amount: float = 0.5) -> None:
        self.amount = amount

    def __call__(self, sample, generator):
        return sample
'''
SCALED, PLAIN = "./losses.py:Scaled", "./losses.py:Plain"
TINY = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--callback", "no:tensorboard")


@pytest.fixture(autouse=True)
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("losses.py").write_text(LOSSES)


def loss_of(settings: dict[str, Any], **live: Any) -> nn.Module:
    return tiny_run({"loss.use": SCALED, **settings}, **live).loss


def draft_of(request: Request) -> Any:
    return make_draft(request.layers, request.registry, request.live)


def test_the_default_a_name_alone_options_alone_and_a_table_mean_what_they_say() -> None:
    assert type(loss_of({}).main).__name__ == "CrossEntropy"
    assert type(loss_of({"loss.main": PLAIN}).main).__name__ == "Plain"
    assert loss_of({"loss.main.label_smoothing": 0.25}).main.label_smoothing == 0.25
    both = loss_of({"loss.main": PLAIN, "loss.main.weight": 3.0}).main
    assert both.weight == 3.0
    table = loss_of({"loss": {"main": {"use": PLAIN, "weight": 4.0}}}).main
    assert table.weight == 4.0


def test_losses_nest_in_losses_in_losses() -> None:
    settings = {
        "loss.main.use": SCALED,
        "loss.main.factor": 3.0,
        "loss.main.main.use": SCALED,
        "loss.main.main.factor": 5.0,
        "loss.main.main.main.label_smoothing": 0.125,
    }
    run = tiny_run({"loss.use": SCALED, **settings})
    innermost = run.loss.main.main.main
    assert innermost.label_smoothing == 0.125
    batch = run.task.collate([{"tokens": [1, 2]}])
    values = {**batch, "logits": torch.randn(1, 2, tiny.VOCABULARY)}
    assert torch.isclose(run.call_loss(values).sum, 2 * 3 * 5 * innermost(values["logits"], values["labels"]).sum)


def test_a_live_object_and_a_class_stand_inside_others() -> None:
    live = nn.Module()
    live.forward = lambda logits, labels: (logits.float() ** 2).mean()  # type: ignore[assignment]
    request = tiny_request({"loss.use": SCALED, "loss.main": "live:inner"})
    made = draft_of(Request(request.layers, {**request.live, "live:inner": live})).parts["loss"].build()
    assert made.main is live
    preview = trainkit.preview(
        task=TinyTask(), callback="none", settings={"loss.use": SCALED, "loss": {"main": live}, "device": "cpu"}
    )
    assert preview.parts["loss"].build().main is live


def test_an_option_may_do_without_and_one_without_a_default_needs_a_name() -> None:
    loss = loss_of({"loss.use": "./losses.py:Maybe", "loss.main": "cross-entropy"})
    assert loss.other is None
    loss = loss_of({"loss.use": "./losses.py:Maybe", "loss.main": SCALED, "loss.other.use": PLAIN})
    assert type(loss.other).__name__ == "Plain"
    with pytest.raises(UsageError, match=r"loss\.main: a value is needed \(loss by name\)"):
        loss_of({"loss.use": "./losses.py:Maybe"})
    with pytest.raises(UsageError, match=r"loss\.main: the name of a loss is needed"):
        loss_of({"loss.main": None})
    with pytest.raises(UsageError, match=r"loss\.other: the name of a loss is needed"):
        loss_of({"loss.use": "./losses.py:Maybe", "loss.main": SCALED, "loss.other.factor": 3.0})


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        ({"loss.main.label_smothing": 0.1}, ["'loss.main.label_smothing'", "did you mean 'loss.main.label_smoothing'"]),
        ({"loss.main.label_smoothing": 2.0}, ["loss.main.label_smoothing: ", "less than 1", "test"]),
        ({"loss.main": "cross-entropi"}, ["did you mean 'cross-entropy'", "loss.main.use, test"]),
        ({"loss.main": SCALED, "loss.main.main.use": "nope"}, ["no loss named 'nope'", "loss.main.main.use, test"]),
        ({"loss.main": "./other.py:Loss"}, ["there is no file ./other.py", "loss.main.use, test"]),
        ({"loss.mian.label_smoothing": 0.1}, ["'loss.mian'", "did you mean 'loss.main'"]),
        ({"loss.use": "./losses.py:Endless"}, ["parts nest deeper than 8 levels"]),
    ],
)
def test_what_is_wrong_is_named_by_its_full_key_with_its_origin(settings: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(TrainkitError) as caught:
        loss_of(settings)
    for text in texts:
        assert text in str(caught.value)


def test_a_blocked_plugin_is_not_loaded_as_an_inner_part_either() -> None:
    request = tiny_request({"loss.use": SCALED})
    registry = Registry(blocked=["cross-entropy"])
    with pytest.raises(PluginError, match="loss 'cross-entropy' cannot be used: it is in the block list"):
        make_draft(request.layers, registry, request.live)


def test_another_inner_part_drops_the_options_of_the_one_before() -> None:
    def options(*layers: dict[str, Any]) -> dict[str, Any]:
        return merged([layer_of(layer, f"layer {place}") for place, layer in enumerate(layers)]).options("loss")

    below = {"loss.use": "a", "loss.main.use": "b", "loss.main.x": 1, "loss.main.main": "c", "loss.factor": 2}
    assert options(below, {"loss.main.use": "d"}) == {"main.use": "d", "factor": 2}
    assert options(below, {"loss.main": "d", "loss.main.y": 3}) == {"main.use": "d", "main.y": 3, "factor": 2}
    assert options(below, {"loss.main": "b"}) == {"main.use": "b", "main.x": 1, "main.main": "c", "factor": 2}
    assert options({"loss.main": "b", "loss.main.x": 1}, {"loss.main.use": "d"}) == {"main.use": "d"}
    assert options({"loss.main": "b", "loss.main.x": 1}, {"loss.main": "d"}) == {"main": "d"}
    assert options(below, {"loss.use": "z", "loss.main.use": "b"}) == {"main.use": "b"}


def test_why_tells_of_inner_options_and_the_plan_shows_inner_parts(cli: Any) -> None:
    arguments = (*TINY, "--loss", SCALED)
    set_too = ("--set", "loss.main.label_smoothing=0.1")
    done = cli("plan", *arguments, *set_too, "--why", "loss.main.label_smoothing")
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        "loss.main.label_smoothing = 0.1 from --set loss.main.label_smoothing",
    )
    assert "0.0 from the default" in done.out
    for key in ("loss.main", "loss.main.use"):
        assert cli("plan", *arguments, "--why", key).out.startswith('loss.main.use = "cross-entropy" from the default')
        chosen = cli("plan", *arguments, "--set", f"loss.main={PLAIN}", "--why", key).out
        assert chosen.startswith(f'loss.main.use = "{PLAIN}" from --set loss.main\n')
    assert re.search(
        r"^loss\.main +cross-entropy +\(default\)$", cli("plan", *arguments, "--no-cost").out, re.MULTILINE
    )


def test_the_type_of_such_an_option_is_said_in_words(cli: Any) -> None:
    done = cli("plugins", "show", f"loss/{SCALED}")
    assert done.code == 0
    assert any(line.split()[:4] == ["main", "loss", "by", "name"] for line in done.out.splitlines())


def test_a_run_records_inner_components_runs_again_and_resumes(tmp_path: Path) -> None:
    settings = {"loss.use": SCALED, "loss.main": "cross-entropy", "loss.main.label_smoothing": 0.1, "out": "first"}
    first = start(tiny_request(settings))
    rows = {row["name"]: row for row in json.loads(Path("first/components.json").read_text())}
    assert rows["cross-entropy"]["inside"] == "loss.main"
    assert rows["cross-entropy"]["distribution"] == "trainkit-loss-cross-entropy"
    assert "inside" not in rows[SCALED]
    assert "loss.main | cross-entropy" in Path("first/README.md").read_text().replace("\\", "")
    for name in ("config.toml", "resolved.toml"):
        loss = tomllib.loads(Path(f"first/{name}").read_text())["loss"]
        assert loss == {"use": SCALED, "main": {"use": "cross-entropy", "label_smoothing": 0.1}}
    request = tiny_request(settings)
    assert resume("first", request).status == "done"
    with pytest.raises(UsageError, match=r"loss\.main\.use cannot change"):
        resume("first", tiny_request({**settings, "loss.main": PLAIN}))
    assert first.status == "done"


def test_a_written_config_leaves_out_the_options_of_what_was_replaced() -> None:
    request = tiny_request({"loss.use": SCALED, "loss.main": "cross-entropy", "loss.main.label_smoothing": 0.1})
    layers = [*request.layers, layer_of({"loss.main.use": PLAIN}, "flag")]
    request = Request(layers, request.live)
    asked = asked_for(draft_of(request).config, request)
    assert {key: value.value for key, value in asked.items() if key.startswith("loss")} == {
        "loss.use": SCALED,
        "loss.main.use": PLAIN,
    }


def test_parts_of_lists_nest_too() -> None:
    both, nothing = "./losses.py:Both", "./losses.py:Nothing"
    tables = {"augmenter": [{"use": both, "first": {"use": nothing, "amount": 0.75}}]}
    draft = draft_of(tiny_request(tables))
    assert draft.lists["augmenter"][both].build().first.amount == 0.75
    assert {row.get("inside") for row in components_of(draft)} == {None, f"augmenter.{both}.first"}
    run = tiny_run({"augmenter": [both], "augmenter.Both.first.amount": 0.25})
    assert run.augmenters[0].first.amount == 0.25
    with pytest.raises(UsageError, match=r"did you mean 'augmenter\..*Both\.first\.amount'"):
        tiny_run({"augmenter": [both], "augmenter.Both.first.amuont": 0.25})


def test_an_inner_part_and_the_task_hear_events_the_task_first() -> None:
    heard: list[str] = []

    class Inside(nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return (logits**2).mean()

        @hookimpl
        def on_epoch_start(self) -> None:
            heard.append("inner loss")

    class Outside(nn.Module):
        def __init__(self, main: InnerLoss = Inside) -> None:
            super().__init__()
            self.main = built("loss", main)
            self.reads, self.reads_optional = reads_of(self.main)

        def forward(self, **values: torch.Tensor) -> Any:
            return call(self.main, values)

        @hookimpl
        def on_epoch_start(self) -> None:
            heard.append("loss")

    class Hearing(TinyTask):
        @hookimpl
        def on_epoch_start(self) -> None:
            heard.append("task")

    run = tiny_run(task=Hearing(), loss=Outside)
    for hear in run.events.on_epoch_start:
        hear(run)
    assert heard == ["task", "loss", "inner loss"]


def test_a_task_that_misspells_an_event_is_named() -> None:
    class Hearing(TinyTask):
        @hookimpl
        def on_steps(self) -> None:
            raise AssertionError

    with pytest.raises(PluginError, match=r"task live:task implements an event .*\n.*did you mean 'on_step'"):
        tiny_run(task=Hearing())
