"""How threads wait is decided once, and by the user if the user did."""

from __future__ import annotations

import pytest
from trainkit_cli.threads import wait_briefly


def test_threads_spin_briefly() -> None:
    environment: dict[str, str] = {}
    wait_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": "2000"}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_decided_stays(name: str) -> None:
    environment = {name: "ACTIVE"}
    wait_briefly(environment)
    assert environment == {name: "ACTIVE"}
