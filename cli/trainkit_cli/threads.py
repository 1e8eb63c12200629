"""How PyTorch's threads wait for each other: told before PyTorch is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "2000"
CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads spin only briefly before they sleep, unless the user decided about that.

    By default they spin for long, which is as fast on idle cores but several times slower where another program keeps
    one of the cores busy: docs/measured.md has the figures.
    """
    if not any(name in environment for name in CHOSEN_BY_USER):
        environment["GOMP_SPINCOUNT"] = SPINS
