"""`trainkit plugins` and the frame of the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"pydantic", "pluggy", "rich", "torch", "numpy", "transformers", "importlib.metadata", "tomllib"}
OWN_MODULES = {f"trainkit_cli{name}" for name in ("", ".main", ".commands", ".listing", ".plugins")}
SPY = """
import sys
from trainkit_cli.main import main
try:
    main({arguments!r})
finally:
    print(sorted(sys.modules), file=sys.stderr)
"""


CALM = """
from trainkit import hookimpl

class Calm:
    '''Hear every step and do nothing.'''

    @hookimpl
    def on_step(self, run):
        pass

@hookimpl
def trainkit_callback():
    return Calm
"""


def cli(*arguments, **environment):
    """Run the command line and return the finished process."""
    command = [sys.executable, "-m", "trainkit_cli", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


@pytest.fixture
def hostile(site, monkeypatch):
    """Install one plugin that works and several that must not be imported or cannot work."""
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    site.install("fake-good", "loss", "good")
    site.install("fake-exit", "loss", "leaves", code="import os\nos._exit(7)")
    site.install("fake-same", "optimizer", "adamw", code="raise SystemExit")
    site.install("fake-new", "metric", "newer", requires="trainkit-core>=99")
    site.install("fake-damaged", "metric", "damaged", metadata=None)
    site.install("fake-strange", "callback", "../\x1b[31mx")
    return site


def rows(text):
    """Return the lines of the first table, by kind and name."""
    lines = text.split("\n\n")[0].splitlines()
    assert lines[0].split() == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "STATUS", "SUMMARY"]
    return {(line.split()[0], line.split()[1], line.split()[2]): line for line in lines[1:]}


def test_the_listing_shows_every_state_and_imports_nothing(hostile):
    done = cli("plugins")
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(done.stdout)
    assert found["loss", "good", "fake-good"].split() == ["loss", "good", "fake-good", "1.0", "ok", "A", "loss"]
    assert found["loss", "leaves", "fake-exit"].split()[4] == "ok"
    assert found["optimizer", "adamw", "fake-same"].endswith("also in trainkit-optimizer-adamw 0.1.0")
    assert found["optimizer", "adamw", "trainkit-optimizer-adamw"].endswith("also in fake-same 1.0")
    assert found["metric", "newer", "fake-new"].endswith("it needs trainkit-core>=99, and 0.1.0 is installed")
    assert found["metric", "damaged", "fake-damaged"].endswith("METADATA is missing or damaged")
    assert "\x1b" not in done.stdout
    assert "../\N{REPLACEMENT CHARACTER}[31mx" in done.stdout


def test_the_json_holds_the_same(hostile):
    done = cli("plugins", "--json")
    document = json.loads(done.stdout)
    states = {entry["distribution"]: entry["status"] for entry in document["installed"]}
    assert states["fake-good"] == states["fake-exit"] == "ok"
    assert states["fake-same"] == states["trainkit-optimizer-adamw"] == "conflict"
    assert (states["fake-new"], states["fake-damaged"]) == ("incompatible", "unreadable")
    assert states["fake-strange"] == "invalid name"
    assert set(document["installed"][0]) == {
        "kind", "name", "module", "distribution", "version", "summary", "status", "reason",
    }  # fmt: skip
    assert isinstance(document["available"], list)


@pytest.mark.parametrize(
    "arguments",
    [["plugins"], ["plugins", "--json"], ["plugins", "--kind", "loss"], ["--help"], ["--version"], ["nonsense"]],
)
def test_looking_around_loads_nothing_heavy_and_no_plugin(hostile, arguments):
    done = subprocess.run([sys.executable, "-c", SPY.format(arguments=arguments)], capture_output=True, text=True)
    loaded = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))
    assert "trainkit_cli.main" in loaded
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.startswith(("fake_", "trainkit_"))} - OWN_MODULES


def test_the_plain_listing_loads_no_click(hostile):
    done = subprocess.run([sys.executable, "-c", SPY.format(arguments=["plugins"])], capture_output=True, text=True)
    assert "'click'" not in done.stderr
    assert "'trainkit.discovery'" in done.stderr


def test_what_is_not_installed_is_offered(tmp_path):
    # Without the installed plugins on its path, the listing offers what the catalogue knows.
    import trainkit
    import trainkit_cli

    roots = {str(Path(module.__file__).parents[1]) for module in (trainkit, trainkit_cli)}
    code = f"import sys; sys.path += {sorted(roots)!r}\n"
    code += "from trainkit_cli.main import main; main(['plugins'])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    first, _, second = done.stdout.partition("\n\n")
    assert first == "no plugin is installed"
    assert second.startswith("available: pip install DISTRIBUTION\nKIND ")
    assert "trainkit-optimizer-adamw" in second


def test_a_terminal_gets_a_table_that_a_hostile_summary_cannot_style(hostile):
    hostile.install("fake-markup", "loss", "markup", metadata="Name: fake-markup\nVersion: 1\nSummary: [red]loud[/red]")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "trainkit_cli", "plugins"], stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait() == 0
    assert b"installed" in shown
    assert b"[red]loud[/red]" in shown


def test_a_failure_is_shown_until_the_plugin_loads_again(hostile):
    checked = cli("plugins", "check", "loss/leaves")
    assert checked.returncode == 4
    assert checked.stdout.splitlines()[1:] == ["        import: it ended the process with exit code 7"]
    assert checked.stdout.startswith("broken  loss/leaves (fake-exit 1.0): ")
    listed = rows(cli("plugins").stdout)["loss", "leaves", "fake-exit"]
    assert listed.split(maxsplit=5)[4:] == ["broken", "import: it ended the process with exit code 7"]
    (hostile.folder / "fake_exit" / "__init__.py").write_text(
        "from trainkit import hookimpl\n@hookimpl\ndef trainkit_loss():\n    return dict\n"
    )
    again = cli("plugins", "check", "loss/leaves")
    assert again.stdout.startswith("ok      loss/leaves (fake-exit 1.0): ")
    assert "broken" not in rows(cli("plugins").stdout)["loss", "leaves", "fake-exit"]


def test_a_named_plugin_goes_through_the_checks_of_its_kind(hostile):
    hostile.install("fake-calm", "callback", "calm", code=CALM)
    done = cli("plugins", "check", "callback/calm", "--json")
    (result,) = json.loads(done.stdout)
    assert (result["fault"], result["entry"]["name"]) == ("", "calm")
    assert {"passed"} == {made["outcome"] for made in result["checks"]}, result["checks"]
    assert done.returncode == 0


def test_a_check_that_fails_is_told_with_its_reason(hostile):
    # It loads, but what it makes is no loss at all.
    done = cli("plugins", "check", "loss/good")
    assert done.returncode == 4
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok      loss/good (fake-good 1.0): ")
    assert re.fullmatch(r"        checks: \d+ passed, \d+ failed(, \d+ not checked)?", lines[1])
    assert any(line.startswith("        failed: ") for line in lines)
    assert "Traceback" not in done.stdout + done.stderr


def test_all_are_loaded_where_none_is_named(hostile, monkeypatch):
    monkeypatch.setenv("TRAINKIT_PLUGINS", "good,leaves")
    done = cli("plugins", "check", "--json")
    faults = {result["entry"]["name"]: result["fault"] for result in json.loads(done.stdout)}
    assert (done.returncode, faults["good"]) == (4, "")
    assert faults["leaves"] == "import: it ended the process with exit code 7"
    assert faults["cosine"] == "blocked: $TRAINKIT_PLUGINS does not allow it"


def test_show_tells_options_with_types_defaults_and_help():
    done = cli("plugins", "show", "optimizer/adamw")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "optimizer/adamw"
    assert "  from   trainkit-optimizer-adamw 0.1.0" in lines
    assert any(line.split()[:5] == ["lr", "float", ">", "0", "0.001"] for line in lines)
    document = json.loads(cli("plugins", "show", "optimizer/adamw", "--json").stdout)
    assert document["options"][0]["name"] == "lr"
    assert document["options"][0]["required"] is False


def test_show_of_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("class Mine:\n    '''Weigh.'''\n    def __init__(self, weight: float): ...\n")
    done = cli("plugins", "show", f"loss/{tmp_path}/mine.py:Mine")
    assert done.stdout.splitlines()[1:] == [
        "  Weigh.",
        "",
        "  from   a file",
        "",
        "  OPTION  TYPE   DEFAULT   HELP",
        "  weight  float  required",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "first"),
    [
        (
            ["plugins", "show", "loss/crossentropy"],
            4,
            "error: no loss named 'crossentropy'; did you mean 'cross-entropy'?",
        ),
        (["plugins", "show", "adamw"], 2, "error: 'adamw' is not of the form KIND/NAME"),
        (["plugins", "show", "los/x"], 2, "error: there is no kind 'los'; did you mean 'loss'?"),
        (["plugins", "check", "loss/Nothing"], 2, "error: 'Nothing' is not the name of a loss"),
        (["plugins", "--kind", "los"], 2, "error: there is no kind 'los'; did you mean 'loss'?"),
        (["plugins", "registry", "check", "/"], 2, "error: no plugin folders"),
        (["plugin"], 2, "Usage: trainkit [OPTIONS] COMMAND [ARGS]..."),
        (["plugins", "--jsn"], 2, "Usage: trainkit plugins [OPTIONS] [COMMAND] [ARGS]..."),
    ],
)
def test_what_is_wrong_with_a_request_is_said_once(arguments, code, first):
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[0] == first
    assert "Traceback" not in done.stderr


def test_an_unknown_command_gets_the_nearest():
    assert cli("plugin").stderr.endswith("Error: no command named 'plugin'; did you mean 'plugins'?\n")


def test_an_allow_list_that_names_nothing_is_refused():
    done = cli("plugins", TRAINKIT_PLUGINS="adamv")
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == [
        "error: nothing installed is named 'adamv'; did you mean 'adamw'?",
        "  where: $TRAINKIT_PLUGINS",
    ]


def test_a_reader_that_leaves_early_is_no_error(site, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    for number in range(600):
        place = site.folder / f"fake_{number}-1.dist-info"
        place.mkdir()
        (place / "entry_points.txt").write_text(f"[trainkit.loss]\nl{number} = fake\n")
        (place / "METADATA").write_text(f"Name: fake-{number}\nVersion: 1\nSummary: {'long ' * 40}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainkit_cli", "plugins"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


FAULT = """
import trainkit_cli.listing
from trainkit_cli.main import main

def fail(as_json):
    raise ZeroDivisionError("no wonder")

trainkit_cli.listing.list_plugins = fail
main(["plugins"])
"""


def test_a_fault_of_our_own_is_said_as_such_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", FAULT], capture_output=True, text=True)
    (kept,) = tmp_path.iterdir()
    assert done.returncode == 3
    assert done.stderr == (
        "error: this is a fault of trainkit: ZeroDivisionError: no wonder\n"
        f"  where: the traceback is in {kept}\n"
        "  do:    please report it with the traceback; 'trainkit --debug ...' shows it here\n"
    )
    assert "in fail" in kept.read_text()


def test_debug_shows_the_traceback():
    environment = {**os.environ, "TRAINKIT_DEBUG": "1"}
    done = subprocess.run([sys.executable, "-c", FAULT], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    done = cli("--debug", "plugins", "--kind", "los")
    assert "UsageError: there is no kind 'los'" in done.stderr


def test_an_interrupt_ends_with_its_own_code():
    code = FAULT.replace('ZeroDivisionError("no wonder")', "KeyboardInterrupt")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_the_command(shell):
    done = cli("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_TRAINKIT_COMPLETE" in done.stdout


def test_completion_completes_commands():
    done = cli(_TRAINKIT_COMPLETE="bash_complete", COMP_WORDS="trainkit pl", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,plan", "plain,plugins"]
