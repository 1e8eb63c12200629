"""A plan says how many ranks there are and what each of them takes, before any of them is started."""

from __future__ import annotations

import json

import pytest
from trainkit.testing import tiny

TINY = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "phase3")


def test_a_plan_tells_ranks_and_the_share_of_each(cli):
    ended = cli("plan", *TINY, "--devices", "3", "--no-cost")
    assert ended.code == 0
    told = " ".join(ended.out.split())
    assert "3, a process (rank) for each: 10 or 11 samples of each micro-batch of 32" in told
    assert "data parallelism" not in told
    alone = " ".join(cli("plan", *TINY, "--no-cost").out.split())
    assert "left out: data parallelism: there is one device" in alone


def test_the_cost_is_that_of_all_devices(cli, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\ndevice = "*"\nper_hour = 3600.0\ncurrency = "EUR"\n')
    cost = json.loads(cli("plan", *TINY, "--devices", "2", "--prices", prices, "--json").out)["cost"]
    assert (cost["devices"], cost["amount"]) == (2, pytest.approx(2 * cost["seconds"]))
    told = " ".join(cli("plan", *TINY, "--devices", "2").out.split())
    assert "of one rank, without what ranks tell each other" in told
