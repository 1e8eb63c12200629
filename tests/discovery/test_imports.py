"""Every module of core and command line can be the first that is imported, and importing has no effect outside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = {"core": "trainkit", "cli": "trainkit_cli"}
# One process for a layer: what is heavy and foreign is loaded once, then each module is imported in a fork of that.
IN_FORKS = """
import logging, os, random, signal, sys, warnings
warnings.simplefilter("ignore")
import click, numpy, pluggy, polars, pydantic, pytest, torch
warnings.simplefilter("error")

def surroundings():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] + logging.root.handlers
    return random.getstate(), torch.get_rng_state().tolist(), handlers, dict(os.environ), list(sys.path)

failed = []
for name in sys.argv[1:]:
    if pid := os.fork():
        if os.waitpid(pid, 0)[1] != 0:
            failed.append(name)
        continue
    before = surroundings()
    try:
        __import__(name)
        assert surroundings() == before, "importing it has an effect"
    except BaseException as error:
        print(name, repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
sys.exit(f"failed: {failed}" if failed else 0)
"""


def modules(folder: Path, package: str) -> list[str]:
    root = folder / package
    found = [path.relative_to(folder).with_suffix("") for path in root.rglob("*.py") if path.name != "__main__.py"]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which this system does not have")
@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_imports_alone_and_without_an_effect(repository, layer):
    names = modules(repository / layer, LAYERS[layer])
    assert len(names) > 5
    done = subprocess.run([sys.executable, "-c", IN_FORKS, *names], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_trainkit_loads_nothing_heavy():
    heavy = {"torch", "numpy", "pydantic", "pluggy", "rich", "click"}
    code = f"import sys, trainkit; print(sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
