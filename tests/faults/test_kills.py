"""Runs that are killed at random moments lose nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing() -> None:
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(script), "20"], capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads(done.stdout.splitlines()[-1])
    assert account["kills"] >= 20
    assert account["lost"] == account["unequal"] == 0
