from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field, PositiveFloat
from trainkit.component import Component, component_from_file, component_from_object
from trainkit.errors import DataError, PluginError, UsageError
from trainkit.loader.options import REQUIRED, parse_arguments, type_text

if TYPE_CHECKING:
    from somewhere_else import Unresolvable


class Tuned:
    """Tune.

    Args:
        lr: learning rate,
            in units of nothing.
        mode (str): how.

            A second paragraph: of it.
        params: not an option.

    Raises:
        ValueError: never.
    """

    def __init__(
        self,
        params: list,
        lr: PositiveFloat = 0.1,
        mode: Literal["fast", "slow"] = "fast",
        weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        *extra: int,
        steps: int,
        **more: str,
    ) -> None:
        self.arguments = (params, lr, mode, weights, extra, steps, more)


def tuned(target: Any = Tuned, kind: str = "optimizer") -> Component:
    return Component(kind, "tuned", target, "fake-tuned", "1.0")


def refusal(component, options, origin=None):
    with pytest.raises(UsageError) as caught:
        component.validate(options, origin)
    return caught.value.render()


def test_options_are_the_keyword_parameters_without_what_the_core_passes():
    assert [tuple(row) for row in tuned().describe()] == [
        ("lr", "float > 0", 0.1, "learning rate, in units of nothing."),
        ("mode", "'fast' or 'slow'", "fast", "how. A second paragraph: of it."),
        ("weights", "dict[str, float >= 0] or none", None, ""),
        ("steps", "int", REQUIRED, ""),
    ]
    assert tuned().help == {"lr": "learning rate, in units of nothing.", "mode": "how. A second paragraph: of it."}


def test_validate_gives_all_options_converted():
    assert tuned().validate({"steps": "3", "lr": 1}) == {"lr": 1.0, "mode": "fast", "weights": None, "steps": 3}


def test_dotted_names_reach_into_mappings():
    found = tuned().validate({"steps": 1, "weights": {"a": 1}, "weights.b": 2})
    assert found["weights"] == {"a": 1.0, "b": 2.0}


def test_build_passes_options_and_what_the_core_gives():
    component = tuned()
    built = component.build(component.validate({"steps": 2}), params=["p"])
    assert built.arguments == (["p"], 0.1, "fast", None, (), 2, {})


def test_an_unknown_option_is_refused_with_place_choices_and_nearest():
    assert refusal(tuned(), {"lrr": 1}, lambda option: f"run.toml:7 ({option})") == (
        "unknown setting 'optimizer.lrr'; did you mean 'optimizer.lr'?\n"
        "  where: run.toml:7 (lrr)\n"
        "  why:   allowed here: optimizer.lr, optimizer.mode, optimizer.steps, optimizer.weights\n"
        "  do:    trainkit run --help, or 'trainkit plugins show KIND/NAME' for the options of a component"
    )


@pytest.mark.parametrize("name", ["params", "extra", "more", "self", ""])
def test_what_is_no_option_is_refused(name):
    assert refusal(tuned(), {"steps": 1, name: 1}).startswith(f"unknown setting 'optimizer.{name}'")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": 0}, "optimizer.lr: should be greater than 0 (got 0)"),
        ({"lr": "much"}, "optimizer.lr: should be a valid number, unable to parse string as a number (got 'much')"),
        ({"mode": "fats"}, "optimizer.mode: should be 'fast' or 'slow'; did you mean 'fast'? (got 'fats')"),
        ({"mode": 3}, "optimizer.mode: should be 'fast' or 'slow' (got 3)"),
        ({"weights.a": -1}, "optimizer.weights.a: should be greater than or equal to 0 (got -1)"),
        ({"weights": 3}, "optimizer.weights: should be a valid dictionary (got 3)"),
        ({"steps": 1.5}, "optimizer.steps: should be a valid integer, got a number with a fractional part (got 1.5)"),
    ],
)
def test_a_wrong_value_is_refused_with_place_value_and_what_is_allowed(options, said):
    (option,) = options
    assert refusal(tuned(), {"steps": 1, **options}, lambda asked: f"--set {asked}") == (
        f"{said}\n  where: --set {option}\n"
        f"  do:    trainkit plan --why {said.partition(':')[0]} shows where the value comes from"
    )


def test_a_value_that_is_needed_is_asked_for():
    assert refusal(tuned(), {}) == "optimizer.steps: a value is needed (int)\n  do:    add --set optimizer.steps=VALUE"


def test_options_of_a_kind_with_several_components_are_keyed_by_name():
    def make(size: int = 1):
        return size

    assert refusal(tuned(make, "callback"), {"size": "x"}).startswith("callback.tuned.size: should be a valid integer")


def test_a_type_that_cannot_be_resolved_hides_no_other():
    def make(first: Unresolvable = None, second: int = 1):
        return first, second

    component = tuned(make)
    assert [row.type for row in component.describe()] == ["any", "int"]
    assert component.validate({"first": "anything", "second": "2"}) == {"first": "anything", "second": 2}
    with pytest.raises(UsageError):
        component.validate({"second": "x"})


def test_a_type_that_pydantic_does_not_know_hides_no_other():
    def make(first, second):
        return first, second

    class Unfit:
        def __get_pydantic_core_schema__(self, handler):
            raise RuntimeError("no schema")

    make.__annotations__ = {"first": Unfit(), "second": int}
    component = tuned(make)
    with pytest.raises(UsageError):
        component.validate({"first": object(), "second": "x"})
    assert component.validate({"first": "free", "second": "1"}) == {"first": "free", "second": 1}


def test_any_class_may_be_a_type():
    class Own:
        pass

    def make(own=None):
        return own

    make.__annotations__ = {"own": Own | None}
    thing = Own()
    assert tuned(make).validate({"own": thing}) == {"own": thing}
    with pytest.raises(UsageError):
        tuned(make).validate({"own": 1})


def test_names_that_pydantic_uses_itself_are_ordinary_options():
    def make(copy: int = 1, schema: int = 2, model_config: int = 3, _hidden: int = 4, json: int = 5):
        return copy, schema, model_config, _hidden, json

    component = tuned(make)
    options = component.validate({"copy": "7", "_hidden": "8"})
    assert options == {"copy": 7, "schema": 2, "model_config": 3, "_hidden": 8, "json": 5}
    assert component.build(options) == (7, 2, 3, 8, 5)
    assert [row.name for row in component.describe()] == ["copy", "schema", "model_config", "_hidden", "json"]


def test_defaults_are_the_targets_own_objects():
    sentinel = object()

    def make(value: Any = sentinel):
        return value

    component = tuned(make)
    assert component.build(component.validate({})) is sentinel


@pytest.mark.parametrize("target", [dict, functools.partial(Tuned, ["p"], steps=1), dataclass(type("Plain", (), {}))])
def test_targets_of_any_form_have_options(target):
    assert isinstance(tuned(target).validate({}), dict)


def test_what_the_target_does_not_take_is_not_passed():
    def scheduler(optimizer, rate: float = 0.1):
        return optimizer, rate

    assert tuned(scheduler, "scheduler").build({"rate": 0.5}, optimizer="o", total_steps=9) == ("o", 0.5)


def test_native_torch_classes_are_targets():
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    component = tuned(torch.optim.SGD)
    optimizer = component.build(component.validate({"lr": 0.5, "nesterov": False}), params=[parameter])
    assert optimizer.defaults["lr"] == 0.5
    scheduler = tuned(torch.optim.lr_scheduler.ConstantLR, "scheduler")
    built = scheduler.build(scheduler.validate({"factor": 0.5}), optimizer=optimizer, total_steps=10)
    assert built.get_last_lr() == [0.25]


def test_a_target_that_raises_is_named_with_the_phase():
    def fail(size: int = 1):
        raise ValueError(f"no room for {size}")

    with pytest.raises(PluginError) as caught:
        tuned(fail).build({"size": 3})
    first, where, why, _ = caught.value.render().splitlines()
    assert first == "optimizer 'tuned' cannot be used: it failed in the phase 'create'"
    assert where == "  where: fake-tuned 1.0"
    assert why.startswith("  why:   ValueError: no room for 3 (discovery/test_component.py, line ")


def test_an_error_for_users_passes_as_it_is():
    def fail():
        raise DataError("the folder is empty")

    with pytest.raises(DataError, match="the folder is empty"):
        tuned(fail).build({})


class Reads:
    def forward(self, logits, labels, props=None):
        return None

    update = forward


def test_what_a_component_reads_comes_from_its_parameters_or_its_own_word():
    assert tuned(Reads, "loss").reads == ("labels", "logits", "props")
    assert tuned(Reads, "metric").reads == ("labels", "logits", "props")
    assert tuned(Reads, "optimizer").reads == ()
    assert tuned(type("Told", (Reads,), {"reads": frozenset({"y", "x"})}), "loss").reads == ("x", "y")
    assert tuned(type("Task", (), {"gives": frozenset({"b", "a"})}), "task").gives == ("a", "b")


def test_a_live_object_is_itself_and_has_no_options():
    thing = Reads()
    component = component_from_object("loss", thing)
    assert (component.name, component.build({}), component.describe()) == ("Reads", thing, [])
    assert refusal(component, {"lr": 1}).startswith("unknown setting 'loss.lr'")


def test_a_live_class_or_function_makes_the_object():
    assert isinstance(component_from_object("loss", Reads).build({}), Reads)
    assert component_from_object("loss", lambda size=2: size).build({"size": 3}) == 3


def write(folder, text):
    file = folder / "mine.py"
    file.write_text(text)
    return str(file)


def test_a_component_may_come_from_a_file(tmp_path):
    file = write(
        tmp_path,
        "class MyLoss:\n    '''Weigh.'''\n    def __init__(self, weight: float = 1):\n        self.weight = weight\n",
    )
    component = component_from_file("loss", f"{file}:MyLoss")
    assert component.build(component.validate({"weight": "2"})).weight == 2.0
    assert component.distribution == ""


def test_a_component_from_a_file_comes_through_the_registry(tmp_path, monkeypatch):
    from trainkit.registry import Registry

    write(tmp_path, "def my_loss():\n    return 7\n")
    monkeypatch.chdir(tmp_path)
    assert Registry(()).load("loss", "./mine.py:my_loss").build({}) == 7


def test_types_in_a_file_may_refer_to_the_file(tmp_path):
    file = write(
        tmp_path,
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Size:\n    n: int\n"
        "class MyLoss:\n    def __init__(self, size: Size | None = None):\n        self.size = size\n",
    )
    assert component_from_file("loss", f"{file}:MyLoss").validate({"size.n": 3})["size"].n == 3


def test_a_file_that_is_not_there():
    with pytest.raises(UsageError) as caught:
        component_from_file("loss", "./absent.py:X")
    assert caught.value.render() == "loss: there is no file ./absent.py\n  do:    write ./FILE.py:OBJECT"


@pytest.mark.parametrize(("name", "hint"), [("MyLos", "; did you mean 'MyLoss'?"), ("", "")])
def test_an_object_that_is_not_in_the_file(tmp_path, name, hint):
    file = write(tmp_path, "import os\nclass MyLoss: ...\n")
    with pytest.raises(UsageError) as caught:
        component_from_file("loss", f"{file}:{name}" if name else file)
    assert caught.value.render() == (
        f"loss: there is no object '{name}' in {file}{hint}\n  why:   it defines: MyLoss\n  do:    write {file}:MyLoss"
    )


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (
            "import nothing_of_this_name",
            "ModuleNotFoundError: No module named 'nothing_of_this_name' ({place}, line 1)",
        ),
        ("raise SystemExit(0)", "SystemExit: 0 ({place}, line 1)"),
        ("x = = 1", "SyntaxError: invalid syntax (mine.py, line 1)"),
    ],
)
def test_a_file_that_fails(tmp_path, code, cause):
    file = write(tmp_path, code)
    with pytest.raises(PluginError) as caught:
        component_from_file("loss", f"{file}:X")
    place = f"{tmp_path.name}/mine.py"
    assert caught.value.render() == (
        f"loss '{file}:X' cannot be used: it failed in the phase 'import'\n"
        f"  why:   {cause.format(place=place)}\n  do:    correct it"
    )


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (float, "float"),
        (int | None, "int or none"),
        (Any, "any"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal[1, "a"], "1 or 'a'"),
        (Annotated[int, Field(ge=1, le=9, multiple_of=2)], "int >= 1 and <= 9 and a multiple of 2"),
        (Annotated[str, Field(pattern="^a$")], "str of the form ^a$"),
        (Annotated[list[int], Field(min_length=2)], "list[int] at least 2 long"),
        (list, "list"),
        (REQUIRED.__class__, "Required"),
    ],
)
def test_types_are_told_in_words(annotation, text):
    assert type_text(annotation) == text


def test_help_texts_need_an_args_section():
    assert parse_arguments("Do it.\n\nlr: not in a section") == {}
    assert parse_arguments("Do it.\n\nArgs:\n  a: one\n  **b: two\n\nReturns:\n  c: no") == {"a": "one", "b": "two"}
