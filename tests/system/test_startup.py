"""A run imports what it names and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys
from trainkit.loop import train
from trainkit.testing.tiny import tiny_run
run = tiny_run({"loop.max_steps": 3, "loop.log_every_steps": 1})
train(run)
print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))
"""
HEAVY = [
    "torch._dynamo",
    "torch._inductor",
    "sympy",
    "transformers",
    "peft",
    "torchmetrics",
    "tensorboard",
    "rich",
    "click",
]


def test_a_run_imports_no_compiler_and_nothing_it_does_not_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == []
