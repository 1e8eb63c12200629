from __future__ import annotations

import pytest
from trainkit import Situation, Technique
from trainkit.draft import make_draft
from trainkit.techniques import Want, left_out, offered, own_strength, settings_for, usable
from trainkit.testing.tiny import TinyTask, tiny_request

DROPOUT = Technique(settings={"task.dropout": 0.1}, strength="task.dropout")
ONE = Technique(settings={"loss.use": "one", "loss.weight": 2.0, "task.scales": [1, 2]})
OTHER = Technique(settings={"loss.use": "other"})
MORE = Technique(settings={"loss.use": "other", "loss.more": 1})
LACKING = Technique(lacking="the pages have no screenshots")
SITUATION = Situation(
    train_samples=10, techniques={"dropout": DROPOUT, "one": ONE, "other": OTHER, "more": MORE, "few-shot": LACKING}
)


def values(*wants: Want) -> dict[str, object]:
    return {key: setting.value for key, setting in settings_for(SITUATION, wants).items()}


def test_a_strength_replaces_the_tasks_own():
    assert values(Want("dropout", "as it is")) == {"task.dropout": 0.1}
    assert values(Want("dropout", "few samples", 0.4)) == {"task.dropout": 0.4}
    assert settings_for(SITUATION, [Want("dropout", "few samples", 0.4)])["task.dropout"].reason == "few samples"
    assert own_strength(SITUATION, "dropout") == 0.1
    assert own_strength(SITUATION, "one") is None


def test_another_component_takes_the_options_of_the_one_before_along():
    assert values(Want("one", "first"), Want("other", "second")) == {"loss.use": "other", "task.scales": [1, 2]}


def test_the_same_component_keeps_its_options():
    assert values(Want("more", "first"), Want("other", "second")) == {"loss.use": "other", "loss.more": 1}


def test_what_cannot_be_used_is_left_out_and_told():
    assert values(Want("few-shot", "why not"), Want("nonsense", "why not")) == {}
    assert usable(SITUATION, "few-shot") is None
    assert left_out(SITUATION, ["dropout", "few-shot", "nonsense"]) == (
        "left out: few-shot: the pages have no screenshots",
        "left out: nonsense: the task offers none",
    )
    assert left_out(SITUATION, ["a", "b"]) == ("left out: a, b: the task offers none of them",)
    assert left_out(SITUATION, ["dropout"]) == ()


def test_a_task_that_is_built_takes_no_other_options():
    assert offered(TinyTask(), is_built=False)["dropout"].settings == {"task.dropout": 0.1}
    fixed = offered(TinyTask(), is_built=True)
    assert "an object" in fixed["dropout"].lacking
    assert fixed["label-smoothing"] == TinyTask.techniques["label-smoothing"]
    assert offered(object(), is_built=True) == {}


@pytest.mark.parametrize(("task", "is_usable"), [(TinyTask, True), (TinyTask(), False)])
def test_the_situation_tells_what_the_task_offers(task, is_usable):
    request = tiny_request({"augmenter": ["none"]}, task=task)
    situation = make_draft(request.layers, request.registry, request.live).situation
    assert (usable(situation, "dropout") is not None) is is_usable
    assert situation.defaults["loop.batch_size"] == 4
    assert situation.half_precision is None
    assert not situation.has_augmenter
