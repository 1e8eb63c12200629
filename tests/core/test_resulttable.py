"""Tables of results: what is overall, what is of a part, and how they stand on a terminal of any width."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trainkit.report import Facts
from trainkit.reporting.modelcard import model_card
from trainkit.reporting.reportpage import page
from trainkit.resulttable import by_part, last_split, measured, overall
from trainkit_cli.results import lines_of, print_tables

RESULTS: dict[str, dict[str, Any]] = {
    "model": {
        "train/loss": 0.25, "val/loss": 0.5, "test/loss": 0.625, "test/loss/cpu": 0.75, "test/loss/crossing": 0.125,
        "val/error": 1.5, "test/error": 1.25, "test/error/mae": 300.0, "test/error/risk": 2.0,
        "test/error/risk-0.1": 3.0, "test/error/mase/cpu": 4.0, "test/error/mae/cpu": 5.0, "test/error/mae/disk": 6.0,
        "test/error/mae/step-12": 7.0, "test/error/mase/series/a/b": 8.0, "val/error/mae/disk": 9.0,
    },
    "naive": {"val/error": 2.5, "test/error": 2.25, "test/error/mae": 400.0, "test/error/mae/disk": 10.0},
    "always": {"test/error": math.nan},
}  # fmt: skip
ENDS = "see report.html"


def test_the_model_comes_first_and_each_baseline_has_its_own_splits():
    table = overall(RESULTS, "val/error")
    assert table.groups == (("", ("train", "val", "test")), ("always", ("test",)), ("naive", ("val", "test")))
    assert table.rows == (
        ("loss", ("0.2500", "0.5000", "0.6250", "", "", "")),
        ("  crossing", ("", "", "0.1250", "", "", "")),
        ("error (mase)", ("", "1.5000", "1.2500", "nan", "2.5000", "2.2500")),
        ("  mae", ("", "", "300.00", "", "", "400.00")),
        ("  risk", ("", "", "2.0000", "", "", "")),
        ("  risk-0.1", ("", "", "3.0000", "", "", "")),
    )
    assert table.main == "error (mase)"
    assert table.head() == ["", "train", "val", "test", "always test", "naive val", "naive test"]


def test_one_of_several_levels_is_a_detail():
    assert [label for label, _ in overall(RESULTS, details=False).rows][-1] == "  risk"
    alone = {"model": {"test/accuracy-10": 1.0}}
    assert overall(alone, details=False).rows == (("accuracy-10", ("1.0000",)),)


def test_parts_have_rows_with_the_loss_and_the_baselines():
    parts, steps, series = by_part(RESULTS, "test")
    assert (parts.title, parts.groups) == ("error by part, test", (("", ("loss", "mase", "mae")),))
    assert parts.rows == (
        ("cpu", ("0.7500", "4.0000", "5.0000")),
        ("disk", ("", "", "6.0000")),
        ("  naive", ("", "", "10.000")),
    )
    assert (steps.group, steps.rows) == ("step", (("12", ("7.0000",)),))
    assert (series.group, series.rows) == ("series", (("a/b", ("8.0000",)),))
    assert [table.rows for table in by_part(RESULTS, "val")] == [(("disk", ("9.0000",)),)]
    assert by_part(RESULTS, "train") == []


def test_a_slash_in_the_name_of_a_part_of_the_loss_is_none():
    results = {"model": {"val/loss/disk [KB/s]": 1.0, "val/error": 2.0, "val/error/mae/disk [KB_s]": 3.0}}
    (table,) = by_part(results, "val")
    assert table.rows == (("disk [KB_s]", ("1.0000", "3.0000")),)
    assert [label for label, _ in overall(results).rows] == ["error (mae)"]


def test_the_split_that_says_most():
    assert last_split(RESULTS) == "test"
    assert last_split({"model": {"train/loss": 1, "val/loss": 1}}) == "val"
    assert last_split({"model": {}}) == ""


def test_nothing_measured_is_an_empty_table():
    assert overall({}).rows == overall({"model": {}}).rows == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5000"), (12.3456, "12.346"), (123.456, "123.46"), (12345.6, "12346"), (-2.5, "-2.5000"), (0, "0.0000"),
        (3e-5, "3.00e-05"), (2.5e8, "2.50e+08"), (9999999, "9999999"), (None, ""), (math.nan, "nan"), ("nan", "nan"),
        ("-inf", "-inf"), ("high", "high"),
    ],
)  # fmt: skip
def test_numbers_have_five_digits(value, shown):
    assert measured(value) == shown


@pytest.mark.parametrize(("width", "blocks"), [(28, 3), (44, 2), (60, 1), (200, 1)])
def test_columns_that_find_no_room_follow_below(width, blocks):
    table = overall(RESULTS)
    lines = lines_of(table, table.rows, width)
    assert all(len(line) <= width for line in lines)
    assert lines.count("") == blocks - 1
    assert sum(line.startswith("error (mase)") for line in lines) == blocks
    cells = [cell for _, row in table.rows for cell in row if cell]
    numbers = [word for line in lines for word in line.split() if word[0].isdigit() or word == "nan"]
    assert sorted(numbers) == sorted(cells)


def test_a_head_stands_over_its_columns():
    lines = lines_of(overall(RESULTS), overall(RESULTS).rows, 100)
    naive = lines[0].index("naive") + len("naive")
    assert lines[1][:naive].endswith("test")
    assert lines[4].split() == ["error", "(mase)", "1.5000", "1.2500", "nan", "2.5000", "2.2500"]


def test_many_parts_are_cut_and_told(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    tags = {f"test/error/mae/target-{number}": float(number) for number in range(30)}
    print_tables("results", {"model": tags, "naive": tags}, ENDS)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("target-") for line in lines) == sum(line.startswith("  naive") for line in lines) == 12
    assert lines[-1] == "and 18 more: see report.html"


def test_groups_of_parts_are_named(capsys):
    print_tables("results", RESULTS, ENDS, "val/error")
    assert capsys.readouterr().out.splitlines()[-1] == "by step and series: see report.html"


def test_the_page_and_the_card_have_the_same_tables():
    facts = Facts("mine", results=RESULTS, summary={"monitor": "val/error"})
    html, card = page(facts), model_card(facts)
    assert '<th colspan="2">naive</th>' in html
    assert '<tr class="best"><td>error (mase)</td>' in html
    assert html.count("<details>") == 4
    assert "<summary>error by series, test</summary>" in html
    assert "| risk | " in card
    assert "risk-0.1" not in card
    assert "error by part, test:" in card
    assert "by series" not in card
