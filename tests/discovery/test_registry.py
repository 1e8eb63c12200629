from __future__ import annotations

import json
import random
import sys

import pytest
from trainkit.catalogue import Offer
from trainkit.errors import PluginError, UsageError

HOOK = "from trainkit import hookimpl\n\n@hookimpl\n"


def refusal(registry, reference="bad", kind="loss", error=PluginError):
    with pytest.raises(error) as caught:
        registry.load(kind, reference)
    return caught.value.render()


def broken(phase, cause, distribution="fake-bad"):
    return (
        f"loss 'bad' cannot be used: it failed in the phase '{phase}'\n"
        f"  where: {distribution} 1.0\n"
        f"  why:   {cause}\n"
        f"  do:    pip install --upgrade {distribution}, or pip uninstall {distribution}; "
        "'trainkit plugins check loss/bad' shows the traceback"
    )


FAILURES = {
    "import error": (
        "import nothing_of_this_name",
        "import",
        "ModuleNotFoundError: No module named 'nothing_of_this_name' (fake_bad/__init__.py, line 1)",
    ),
    "syntax error": ("def (:", "import", "SyntaxError: invalid syntax (__init__.py, line 1)"),
    "exit": ("import sys\nsys.exit(0)", "import", "SystemExit: 0 (fake_bad/__init__.py, line 2)"),
    "own base exception": (
        "class Strange(BaseException): ...\nraise Strange('gone')",
        "import",
        "Strange: gone (fake_bad/__init__.py, line 2)",
    ),
    "own interrupt": ("raise KeyboardInterrupt", "import", "KeyboardInterrupt (fake_bad/__init__.py, line 1)"),
    "memory": ("raise MemoryError", "import", "MemoryError (fake_bad/__init__.py, line 1)"),
    "silent exception": (
        "class Silent(Exception):\n    def __str__(self): raise ValueError\nraise Silent",
        "import",
        "Silent (fake_bad/__init__.py, line 3)",
    ),
    "escape codes": (
        "raise ValueError('\\x1b[2Jcleared')",
        "import",
        "ValueError: \N{REPLACEMENT CHARACTER}[2Jcleared (fake_bad/__init__.py, line 1)",
    ),
    "raises in its hook": (
        HOOK + "def trainkit_loss():\n    from json import nothing_there",
        "import",
        "ImportError: cannot import name 'nothing_there' from 'json' (JSON) (fake_bad/__init__.py, line 5)",
    ),
    "misspelt hook": (
        HOOK + "def trainkit_los():\n    return dict",
        "validate",
        "there is no hook 'trainkit_los'; did you mean 'trainkit_loss'?",
    ),
    "unknown hook argument": (
        HOOK + "def trainkit_loss(model):\n    return dict",
        "validate",
        "Argument(s) {'model'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "hook of another kind": (
        HOOK + "def trainkit_metric():\n    return dict",
        "validate",
        "the plugin does not implement trainkit_loss; it implements trainkit_metric",
    ),
    "unmarked hook": (
        "def trainkit_loss():\n    return dict",
        "validate",
        "the plugin does not implement trainkit_loss; is @hookimpl missing above it?",
    ),
    "answers None": (
        HOOK + "def trainkit_loss():\n    return None",
        "validate",
        "trainkit_loss answered with None; a class or a factory is needed",
    ),
    "answers a list": (
        HOOK + "def trainkit_loss():\n    return [dict]",
        "validate",
        "trainkit_loss answered with [<class 'dict'>]; a class or a factory is needed",
    ),
}


@pytest.mark.parametrize(("code", "phase", "cause"), FAILURES.values(), ids=FAILURES)
def test_a_plugin_that_fails_is_named_with_phase_and_cause(site, code, phase, cause):
    site.install("fake-bad", name="bad", code=code)
    assert refusal(site.registry()) == broken(phase, cause.replace("(JSON)", f"({json.__file__})"))


def test_the_cause_stays_for_the_traceback(site):
    site.install("fake-bad", name="bad", code="1 / 0")
    with pytest.raises(PluginError) as caught:
        site.registry().load("loss", "bad")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_all_hostile_plugins_at_once_change_nothing_for_a_healthy_one(site):
    for number, (code, _, _) in enumerate(FAILURES.values()):
        site.install(f"fake-bad{number}", name=f"bad{number}", code=code)
    site.install("fake-new", name="new", requires="trainkit-core>=99")
    site.install("fake-damaged", name="damaged", metadata=None)
    site.install("fake-strange", name="../strange")
    site.install("fake-good", name="good")
    registry = site.registry()
    component = registry.load("loss", "good")
    assert (component.kind, component.name, component.distribution, component.version) == (
        "loss",
        "good",
        "fake-good",
        "1.0",
    )
    assert type(component.build()).__name__ == "Found"
    assert [name for name in sys.modules if name.startswith("fake_")] == ["fake_good"]
    assert len(registry.entries("loss")) == len(FAILURES) + 4


def test_standard_output_stays_clean_and_random_states_stay_as_they_are(site, capsys):
    import numpy
    import torch

    def states():
        legacy = numpy.random.get_state()[1].tolist()  # noqa: NPY002 - this state is what a plugin could change
        return random.getstate(), legacy, torch.get_rng_state().tolist(), torch.get_num_threads()

    code = (
        "import random, sys, numpy, torch\nprint('hello')\nrandom.seed(0); numpy.random.seed(0); torch.manual_seed(0)\n"
        "torch.set_num_threads(torch.get_num_threads() + 1)\nsys.stdout = None\n"
        + HOOK
        + "def trainkit_loss():\n    return dict"
    )
    site.install("fake-noisy", name="noisy", code=code)
    stdout, before = sys.stdout, states()
    site.registry().load("loss", "noisy")
    assert states() == before
    assert sys.stdout is stdout
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_the_users_interrupt_is_no_fault_of_the_plugin(site):
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)"
    site.install("fake-slow", name="slow", code=code)
    with pytest.raises(KeyboardInterrupt):
        site.registry().load("loss", "slow")


def test_two_distributions_with_one_name_are_both_named(site):
    site.install("fake-first", name="bad")
    site.install("fake-second", name="bad", version="2.1")
    assert refusal(site.registry()) == (
        "loss 'bad' is offered by 2 distributions: fake-first 1.0, fake-second 2.1\n"
        "  do:    name one of them, as in --loss bad@fake-first, or uninstall the other"
    )


def test_name_at_distribution_picks_one(site):
    site.install("fake-first", name="same")
    site.install("fake-second", name="same")
    registry = site.registry()
    assert registry.load("loss", "same@fake-second").distribution == "fake-second"
    assert registry.load("loss", "same@Fake_First").distribution == "fake-first"
    assert "fake-third" not in registry.load("loss", "same@fake-first").distribution


def test_name_at_a_distribution_that_does_not_offer_it(site):
    site.install("fake-first", name="bad")
    assert refusal(site.registry(), "bad@fake-frist") == (
        "loss 'bad' is not offered by 'fake-frist'; did you mean 'fake-first'?\n"
        "  why:   offered by: fake-first\n"
        "  do:    trainkit plugins --kind loss"
    )


def test_no_stranger_replaces_a_built_in_by_name_alone(site):
    from trainkit.discovery import discover
    from trainkit.registry import Registry

    site.install("fake-adamw", "optimizer", "adamw")
    registry = Registry(discover())
    assert refusal(registry, "adamw", "optimizer").startswith(
        "optimizer 'adamw' is offered by 2 distributions: fake-adamw 1.0, trainkit-optimizer-adamw "
    )
    assert registry.load("optimizer", "adamw@trainkit-optimizer-adamw").target.__name__ == "AdamW"
    assert "fake_adamw" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "reason", "do"),
    [
        (
            {"requires": "trainkit-core>=99"},
            "it needs trainkit-core>=99, and 0.1.0 is installed",
            "pip install --upgrade fake-bad trainkit-core",
        ),
        ({"metadata": None}, "METADATA is missing or damaged", "pip install --force-reinstall fake-bad"),
    ],
    ids=["incompatible", "unreadable"],
)
def test_a_plugin_whose_metadata_forbids_it_is_not_imported(site, arguments, reason, do):
    site.install("fake-bad", name="bad", code="raise SystemExit", **arguments)
    assert refusal(site.registry()) == f"loss 'bad' cannot be used: {reason}\n  where: fake-bad 1.0\n  do:    {do}"


def test_an_unknown_name_gets_the_nearest_and_the_installed(site):
    site.install("fake-a", name="huber")
    site.install("fake-b", name="focal", code="raise SystemExit('only a name was asked for')")
    assert refusal(site.registry(), "hubre") == (
        "no loss named 'hubre'; did you mean 'huber'?\n"
        "  why:   installed: focal, huber\n"
        "  do:    trainkit plugins --kind loss"
    )
    assert not {"fake_a", "fake_b"} & set(sys.modules)


def test_a_name_of_the_catalogue_gets_what_to_install(site):
    offer = Offer("loss", "dice", "trainkit-loss-dice", "Overlap", 1, "beta")
    registry = site.registry(catalogue=[offer])
    assert refusal(registry, "dice") == (
        "loss 'dice' is not installed\n"
        "  why:   it is offered by the distribution trainkit-loss-dice\n"
        "  do:    pip install trainkit-loss-dice"
    )
    assert refusal(registry, "dise") == (
        "no loss named 'dise'; did you mean 'dice'?\n"
        "  why:   installed: none\n"
        "         available separately: dice (pip install trainkit-loss-dice)\n"
        "  do:    trainkit plugins --kind loss"
    )
    assert registry.offers("loss") == [offer]
    assert registry.offers("metric") == []


def test_what_is_installed_is_not_offered(site):
    site.install("trainkit-loss-fake", name="fake")
    offer = Offer("loss", "fake", "trainkit-loss-fake", "A loss", 1, "beta")
    assert site.registry(catalogue=[offer]).offers() == []


@pytest.mark.parametrize("name", ["two words", "Upper", "", "\x1b[31m", "no:x", "@dist"])
def test_what_is_no_name_is_refused_as_such(site, name):
    shown = name.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert refusal(site.registry(), name, error=UsageError) == (
        f"'{shown}' is not the name of a loss\n"
        "  why:   names are lower-case words joined by hyphens, as in 'cross-entropy'; "
        "NAME@DISTRIBUTION and ./FILE.py:OBJECT are the other two forms\n"
        "  do:    trainkit plugins --kind loss"
    )


def test_an_unknown_kind_is_refused(site):
    assert refusal(site.registry(), "x", "los", UsageError).startswith("there is no kind 'los'; did you mean 'loss'?")


@pytest.mark.parametrize("blocked", ["bad", "loss/bad", "fake-bad", "Fake_Bad"])
def test_a_blocked_plugin_is_not_loaded(site, blocked):
    site.install("fake-bad", name="bad", code="raise SystemExit")
    registry = site.registry(blocked=[blocked])
    assert registry.names("loss") == []
    assert refusal(registry) == (
        "loss 'bad' cannot be used: it is in the block list\n"
        "  where: fake-bad 1.0\n  do:    change that list, or choose another"
    )


def test_blocking_a_distribution_settles_a_conflict(site):
    site.install("fake-first", name="same")
    site.install("fake-second", name="same")
    assert site.registry(blocked=["fake-first"]).load("loss", "same").distribution == "fake-second"


def test_a_block_list_that_names_nothing_is_refused(site):
    site.install("fake-first", name="same")
    with pytest.raises(UsageError, match=r"nothing installed is named 'smae'; did you mean 'same'\?"):
        site.registry(blocked=["smae"])


@pytest.mark.parametrize(("value", "usable"), [("a", ["a"]), ("loss/a, fake-b", ["a", "b"]), ("", [])])
def test_the_environment_may_allow_only_some(site, monkeypatch, value, usable):
    site.install("fake-a", name="a")
    site.install("fake-b", name="b")
    site.install("fake-c", name="c")
    monkeypatch.setenv("TRAINKIT_PLUGINS", value)
    registry = site.registry()
    assert registry.names("loss") == usable
    assert refusal(registry, "c").startswith("loss 'c' cannot be used: $TRAINKIT_PLUGINS does not allow it\n")


def test_the_environment_must_name_what_is_installed(site, monkeypatch):
    monkeypatch.setenv("TRAINKIT_PLUGINS", "gone")
    with pytest.raises(UsageError, match=r"nothing installed is named 'gone'"):
        site.registry()


def test_names_are_those_that_load_by_name_alone(site):
    site.install("fake-a", name="good")
    site.install("fake-b", name="same")
    site.install("fake-c", name="same")
    site.install("fake-d", name="new", requires="trainkit-core>=99")
    assert site.registry().names("loss") == ["good"]


def test_a_component_is_loaded_once(site):
    site.install("fake-a", name="a")
    registry = site.registry()
    assert registry.load("loss", "a") is registry.load("loss", "a")


def test_a_plugin_may_be_an_object_in_a_module(site):
    method = "class Plugin:\n    @hookimpl\n    def trainkit_loss(self):\n        return dict\n"
    code = f"from trainkit import hookimpl\n{method}plugin = Plugin()\n"
    site.install("fake-object", code=code, entry_points="[trainkit.loss]\nok = fake_object:plugin\n")
    assert site.registry().load("loss", "ok").target is dict
