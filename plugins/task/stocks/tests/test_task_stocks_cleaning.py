"""Cleaning: what each policy makes of rows with faults, all of it told, and of every file as it is on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.errors import DataError
from trainkit.tables import read_table, read_tables
from trainkit_task_stocks.bars import PRICES, Bars, report, stretches
from trainkit_task_stocks.cleaning import Limits, clean
from trainkit_task_stocks.columns import read_bars
from trainkit_task_stocks.rules import broken

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "stock-ohlcv"
DAY = 86_400_000_000
NAN = float("nan")
START = int(np.datetime64("2024-01-01", "us").astype(np.int64))

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="stock-ohlcv is not in ../shared/data")


def made(prices, volume, days=None, symbol="A", **columns):
    days = np.arange(len(prices)) if days is None else np.asarray(days)
    times = pl.Series("time", START + days * DAY).cast(pl.Datetime("us"))
    parts = [pl.Series(name, np.asarray(prices, float)[:, n]) for n, name in enumerate(PRICES)]
    others = [pl.Series(name, np.asarray(values, float)) for name, values in columns.items()]
    frame = pl.DataFrame([times, *parts, pl.Series("volume", np.asarray(volume, float)), *others])
    return Bars(symbol, f"{symbol}.csv", frame.with_row_index("row"))


def walk(seed, rows=60, sigma=0.01):
    random = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(random.normal(0, sigma, rows)))
    open_ = np.concatenate([[50.0], close[:-1]])
    reach = np.exp(np.abs(random.normal(0, sigma / 2, (2, rows))))
    high, low = np.maximum(open_, close) * reach[0], np.minimum(open_, close) / reach[1]
    return np.stack([open_, high, low, close], axis=1), np.round(1e6 * np.exp(random.normal(0, 0.2, rows)))


def dirty():
    """Return 30 bars with a missing open, a low that is too high, a close in cents, and a time that comes twice."""
    prices, volume = walk(1, rows=30)
    prices[5, 0] = NAN
    prices[9, 2] = max(prices[9, 0], prices[9, 3])
    prices[14, 3] *= 100
    days = np.arange(30)
    days[20] = 19
    return made(prices, volume, days)


def faults(remarks):
    return {remark.rule: remark.lines for remark in remarks if remark.is_fault}


FAULTS = {
    "duplicate time": (21,),
    "wrong unit": (16,),
    "not a number": (7,),
    "low above open or close": (11,),
}


def test_repair_mends_and_tells_each_row():
    bars = dirty()
    [cleaned], remarks = clean([bars])
    assert faults(remarks) == FAULTS
    assert len(cleaned) == 29
    before, after = bars.where(np.arange(30) != 19).prices(), cleaned.prices()
    changed = np.argwhere(before != after).tolist()
    assert changed == [[5, 0], [9, 2], [14, 3]]
    assert after[5, 0] == np.clip(before[4, 3], before[5, 2], before[5, 1])
    assert after[9, 2] == min(before[9, 0], before[9, 3])
    assert after[14, 3] == pytest.approx(before[14, 3] / 100)
    assert all(remark.done for remark in remarks if remark.is_fault)


def test_drop_leaves_out_the_same_rows():
    bars = dirty()
    [cleaned], remarks = clean([bars], "drop")
    assert {rule: lines for rule, lines in faults(remarks).items() if lines} == FAULTS
    assert cleaned.frame["row"].to_list() == [row for row in range(30) if row not in (5, 9, 14, 19)]
    kept = bars.frame.filter(pl.col("row").is_in(cleaned.frame["row"].implode()))
    assert cleaned.frame.equals(kept)


def test_raise_names_the_first_place_and_counts_all():
    with pytest.raises(
        DataError, match=r"4 rows of 1 file break the rules[\s\S]*A.csv:21[\s\S]*duplicate time 1"
    ) as raised:
        clean([dirty()], "raise")
    for rule in FAULTS:
        assert f"{rule} 1" in str(raised.value)
    assert "task.policy" in str(raised.value)


def test_raise_lets_clean_bars_pass_with_their_jumps():
    prices, volume = walk(2)
    prices[30:] *= 1.3
    volume[30] *= 10
    bars = made(prices, volume)
    cleaned, remarks = clean([bars], "raise")
    assert cleaned[0].frame.equals(bars.frame)
    assert [(r.rule, r.lines, r.done) for r in remarks] == [("jump", (32,), "kept")]


def test_gaps_stale_runs_and_jumps_are_told_and_kept_under_every_policy():
    prices, volume = walk(3)
    prices[40:47] = prices[40, 0]
    volume[40:47] = 0
    prices[47:] *= prices[46, 3] / prices[47, 0]
    days = np.arange(60) + np.where(np.arange(60) >= 50, 9, 0)
    bars = made(prices, volume, days)
    for policy in ("repair", "drop", "raise"):
        [cleaned], remarks = clean([bars], policy)
        assert cleaned.frame.equals(bars.frame)
        assert {r.rule: r.lines for r in remarks} == {"gap": (52,), "stale": tuple(range(42, 49))}
    _, strict = clean([bars], "repair", Limits(gap=9, stale=7))
    assert strict == []


def test_volume_and_adjusted_close_follow_a_split_where_they_moved():
    prices, volume = walk(4)
    adjusted = prices[:, 3] * 0.9
    faulty, amount = prices.copy(), volume.copy()
    faulty[:30] *= 5
    amount[:30] /= 5
    for column, expected in ((np.where(np.arange(60) < 30, adjusted * 5, adjusted), adjusted), (adjusted, adjusted)):
        [cleaned], _ = clean([made(faulty, amount, adj_close=column)])
        np.testing.assert_allclose(cleaned.frame["adj_close"].to_numpy(), expected)
        np.testing.assert_allclose(cleaned.prices(), prices)
        np.testing.assert_allclose(cleaned.volume(), volume, rtol=1e-5)


def test_a_longer_hole_is_left_out_and_a_price_is_never_zero():
    prices, volume = walk(5)
    prices[10:13], prices[20:24], prices[30:32] = 0, NAN, -1
    [cleaned], remarks = clean([made(prices, volume)])
    assert sorted(set(range(60)) - set(cleaned.frame["row"].to_list())) == [20, 21, 22, 23]
    assert (cleaned.prices() > 0).all()
    deeds = [(r.rule, r.lines, r.done.partition(":")[0]) for r in remarks if r.is_fault]
    assert deeds == [
        ("not a number", (22, 23, 24, 25), "left out"),
        ("not above 0", (12, 13, 14, 32, 33), "filled forward"),
    ]


def test_symbols_without_a_usable_row_are_left_out_and_refused_if_none_is_left():
    nothing = made(np.zeros((9, 4)), np.zeros(9), symbol="Z")
    [kept], remarks = clean([nothing, made(*walk(6))])
    assert kept.symbol == "A"
    assert ("no usable row", "Z.csv", "left out") in [(r.rule, r.name, r.done) for r in remarks]
    with pytest.raises(DataError, match=r"no usable row[\s\S]*Z.csv[\s\S]*9 rows \(line 2-10\): a price is 0 or less"):
        clean([nothing])


def test_two_symbols_with_the_same_prices_are_both_named():
    one, other = made(*walk(7), symbol="AAPL"), made(*walk(7), symbol="MSFT")
    for policy in ("repair", "drop"):
        kept, remarks = clean([one, other], policy)
        assert [bars.symbol for bars in kept] == ["AAPL"]
        assert [(r.rule, r.is_fault, r.done) for r in remarks] == [("same prices", True, "MSFT left out")]
        assert "MSFT has the prices of AAPL in AAPL.csv" in remarks[0].text
    with pytest.raises(DataError, match="MSFT has the prices of AAPL"):
        clean([one, other], "raise")


def test_a_report_is_plain_data_by_rule():
    _, remarks = clean([dirty()])
    told = report(remarks)
    assert json.loads(json.dumps(told)) == told
    assert told["wrong unit"] == {
        "rows": 1,
        "is_fault": True,
        "files": [
            {
                "file": "A.csv",
                "text": "close is x100 of the others of its row",
                "done": "close multiplied by 1/100",
                "lines": [16],
            }
        ],
    }


def test_findings_show_lines_as_stretches():
    assert stretches([3, 4, 5, 9, 11, 13, 15, 16]) == "3-5, 9, 11, 13 and 2 more"
    _, remarks = clean([dirty()])
    finding = next(remark.finding() for remark in remarks if remark.rule == "not a number")
    assert finding.place == "A.csv:7"
    assert finding.text == "1 row (line 7): a price or the volume is missing or no number; filled forward"


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.003, 0.01, 0.03]), st.sampled_from(["repair", "drop", "raise"]))
def test_a_clean_random_walk_stays_as_it_is(seed, sigma, policy):
    bars = made(*walk(seed, sigma=sigma))
    [cleaned], remarks = clean([bars], policy)
    assert cleaned.frame.equals(bars.frame)
    assert not any(remark.is_fault for remark in remarks)


CELLS = st.lists(
    st.tuples(
        st.integers(0, 59), st.integers(0, 4), st.sampled_from([NAN, 0.0, -1.0, 0.01, 0.5, 0.7, 1.1, 2.0, 100.0])
    ),
    max_size=12,
)
STRETCH = st.tuples(st.integers(0, 58), st.integers(1, 40), st.sampled_from([1.0, 0.01, 0.5, 2.0, 100.0]))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), CELLS, STRETCH, st.sampled_from(["repair", "drop"]))
def test_what_was_cleaned_keeps_every_rule_and_is_clean(seed, cells, stretch, policy):
    prices, volume = walk(seed)
    table = np.column_stack([prices, volume])
    first, length, ratio = stretch
    table[first : first + length, :4] *= ratio
    for row, column, factor in cells:
        table[row, column] *= factor
    bars = made(table[:, :4], table[:, 4])
    try:
        [cleaned], remarks = clean([bars], policy)
    except DataError:
        # No row is left only where none kept every rule to begin with.
        assert np.any(list(broken(bars.prices(), bars.volume()).values()), axis=0).sum() > 50
        return
    assert not any(where.any() for where in broken(cleaned.prices(), cleaned.volume()).values())
    told = {row for remark in remarks for row in remark.rows if remark.is_fault}
    kept = cleaned.frame["row"].to_numpy()
    same = np.isclose(cleaned.prices(), table[kept, :4], rtol=1e-12).all(axis=1)
    assert set(kept[~same].tolist()) | (set(range(60)) - set(kept.tolist())) <= told
    [again], more = clean([cleaned], policy)
    assert again.frame.equals(cleaned.frame)
    assert not any(remark.is_fault for remark in more)


OUTCOMES = {
    "indicator-reference/bad": {
        "no date": 50,
        "not a number": 51,
        "not above 0": 54,
        "negative volume": 1,
        "off level": 150,
        "high below open or close": 3,
        "low above open or close": 1,
        "high below low": 2,
    },
    # 9 January 2021 is about 5e14 above the days beside it.
    "indicator-reference/toobig": {"off level": 1},
    "sp500-5yr/AOS_data": {"high below open or close": 1, "high below low": 1},
    "sp500-5yr/BBY_data": {"low above open or close": 1},
    "sp500-5yr/DHR_data": {"not a number": 2, "low above open or close": 1},
    "sp500-5yr/DISCA_data": {"missed split": 376},
    "sp500-5yr/LNT_data": {"off cell": 1},
    "sp500-5yr/NWL_data": {"off level": 1},
    "sp500-5yr/O_data": {"not a number": 2, "low above open or close": 2},
    "sp500-5yr/REGN_data": {"not a number": 1},
    "sp500-5yr/UA_data": {"not a number": 1, "low above open or close": 1},
    "sp500-5yr/WRK_data": {"not a number": 1, "low above open or close": 1},
    "sp500-5yr/mislabelled/AAPL_data": {"not a number": 1},
    "sp500-5yr/mislabelled/MSFT_data": {"not a number": 1},
    "yahoo-glitches/1398-HK-1d-bad-div": {"not a number": 1},
    "yahoo-glitches/4063-T-1d-bad-stock-split": {"missed split": 9},
    "yahoo-glitches/ALPHA-PA-1d-bad-stock-split": {"missed split": 1},
    "yahoo-glitches/CLC-L-1d-bad-div": {"wrong unit": 6, "not a number": 1, "high below open or close": 8},
    "yahoo-glitches/KMR-L-1d-no-bad-divs": {"high below open or close": 2},
    "yahoo-glitches/LA-V-1d-bad-stock-split": {"missed split": 1},
    "yahoo-glitches/LSC-L-1d-bad-div": {
        "wrong unit": 110,
        "high below open or close": 64,
        "low above open or close": 58,
    },
    "yahoo-glitches/NVT-L-1d-bad-div": {
        "wrong unit": 35,
        "high below open or close": 207,
        "low above open or close": 43,
    },
    "yahoo-glitches/REL-L-1d-bad-div": {"not a number": 1, "high below open or close": 1},
    "yahoo-glitches/SPM-MI-1d-bad-stock-split": {"missed split": 13},
    "yahoo-glitches/SSW-JO-1d-100x-error": {
        "wrong unit": 22,
        "high below open or close": 3,
        "low above open or close": 1,
    },
    "yahoo-glitches/TENT-L-1d-bad-div": {"high below open or close": 96, "low above open or close": 22},
    "yahoo-glitches/TEP-PA-1d-bad-div": {"high below open or close": 1},
}
REPAIRED_BY_THE_SOURCE = ("missed split", "wrong unit")


def expected(name):
    """Return the outcome of a file; a repaired one has that of the plain one without what its source repaired."""
    if not name.endswith("-fixed"):
        return OUTCOMES.get(name, {})
    outcome = OUTCOMES.get(name.removesuffix("-fixed"), {})
    if not name.endswith(("split-fixed", "error-fixed")):
        return outcome
    return {rule: count for rule, count in outcome.items() if rule not in REPAIRED_BY_THE_SOURCE}


@needs_shared
def test_every_file_on_disk_has_its_outcome():
    seen = 0
    for path in sorted(SHARED.rglob("*.csv")):
        name = path.relative_to(SHARED).with_suffix("").as_posix()
        bars, said = read_bars([read_table(path, path.name)])
        if name == "indicator-reference/zeros":
            with pytest.raises(DataError, match=r"no usable row[\s\S]*200 rows"):
                clean(bars)
            continue
        cleaned, remarks = clean(bars)
        counts = {}
        for remark in (*said, *remarks):
            if remark.is_fault:
                counts[remark.rule] = counts.get(remark.rule, 0) + len(remark.rows)
        assert counts == expected(name), name
        assert not any(where.any() for where in broken(cleaned[0].prices(), cleaned[0].volume()).values()), name
        assert clean(cleaned)[0][0].frame.equals(cleaned[0].frame), name
        seen += 1
    assert seen == 71


@needs_shared
def test_of_two_mislabelled_files_one_is_left_out():
    tables, _ = read_tables([SHARED / "sp500-5yr" / "mislabelled"])
    bars, _ = read_bars(tables)
    kept, remarks = clean(bars)
    assert [some.symbol for some in kept] == ["AAPL"]
    assert remarks[0].rule == "same prices"
    with pytest.raises(DataError, match="MSFT has the prices of AAPL"):
        clean(bars, "raise")


@needs_shared
def test_a_folder_of_tickers_keeps_their_lines_in_what_is_told():
    tables, _ = read_tables([SHARED / "sp500-5yr" / f"{name}_data.csv" for name in ("LNT", "AOS", "AMD")])
    bars, _ = read_bars(tables)
    _, remarks = clean(bars)
    places = {(remark.rule, remark.place) for remark in remarks}
    assert ("off cell", "LNT_data.csv:827") in places
    assert ("high below open or close", "AOS_data.csv:322") in places
    assert ("jump", "AMD_data.csv:808") in places


@pytest.mark.parametrize("path", sorted((DATA / "yahoo").glob("*-fixed.csv")), ids=lambda path: path.stem[:8])
def test_repaired_prices_are_those_of_the_repaired_file(path):
    faulty, _ = read_bars([read_table(path.with_name(path.name.replace("-fixed", "")), "faulty.csv")])
    fixed, _ = read_bars([read_table(path, "fixed.csv")])
    [cleaned], remarks = clean(faulty)
    assert any(remark.is_fault for remark in remarks)
    near = (np.abs(cleaned.prices() / fixed[0].prices() - 1) <= 0.01).all(axis=1)
    assert near.all()
    adjusted = cleaned.frame["adj_close"].to_numpy() / fixed[0].frame["adj_close"].to_numpy()
    np.testing.assert_allclose(adjusted, 1, atol=0.01)


def test_of_two_files_of_a_symbol_that_contradict_each_other_the_longer_one_is_kept(tmp_path):
    rows = [f"2020-01-{day:02},{day},{day + 1},{day - 0.5},{day},100,X" for day in range(6, 25)]
    head = "date,open,high,low,close,volume,symbol"
    (tmp_path / "a.csv").write_text("\n".join([head, *rows]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join([head, *rows[:9]]) + "\n")
    wrong = [f"2020-01-{day:02},{2 * day},{2 * day + 1},{2 * day - 0.5},{2 * day},100,X" for day in range(6, 15)]
    (tmp_path / "c.csv").write_text("\n".join([head, *wrong]) + "\n")
    tables, _ = read_tables([tmp_path])
    bars, _ = read_bars(tables)
    kept, remarks = clean(bars)
    assert [some.name for some in kept] == ["a.csv", "b.csv"]
    found = [remark for remark in remarks if remark.rule == "two sources"]
    assert [(remark.name, remark.text) for remark in found] == [
        ("c.csv", "the closes of X in a.csv are others on 9 of 9 days")
    ]
