"""Contact sheets, answer pages and answer files by themselves."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from trainkit.answering import chosen, spread
from trainkit.contracts import Answer, Panel
from trainkit.errors import ResourceError, UsageError
from trainkit.reporting.answerfiles import AnswerFiles, numbered_folder, plain_name, write_new
from trainkit.reporting.answerpage import MOST_SHOWN, AnswerPage
from trainkit.reporting.contactsheet import (
    CELL,
    GAP,
    LINE_HEIGHT,
    MOST_LINES,
    TALLEST,
    WIDE_CELL,
    clipped,
    fitted,
    font,
    png,
    sheet,
    wrapped,
)

RED = np.zeros((8, 12, 3), dtype=np.uint8)
RED[..., 0] = 255


def area(picture, colour):
    """Return (top, left, height, width) of the pixels of a colour, which fill a rectangle."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert len(rows) == height * width
    return rows.min(), columns.min(), height, width


def test_png_keeps_every_pixel():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(BytesIO(png(picture[:, ::-1])))), picture[:, ::-1])


def test_small_pictures_grow_by_a_whole_factor_and_large_ones_shrink_into_a_cell():
    assert fitted(RED).size == (12 * 12, 8 * 12)
    assert fitted(np.zeros((50, 140, 3), np.uint8)).size == (280, 100)
    assert fitted(np.zeros((100, 3000, 3), np.uint8)).size == (CELL, 10)
    assert fitted(np.zeros((3000, 100, 3), np.uint8)).size == (20, TALLEST)
    assert fitted(np.zeros((1, 3000, 3), np.uint8)).size == (CELL, 1)


def test_a_sheet_has_a_row_for_each_sample_and_a_column_for_each_panel():
    blue = RED[..., ::-1]
    picture = sheet([("one", [Panel("a", RED), Panel("b", blue)]), ("two", [Panel("a", RED * 0)])])
    top, left, *size = area(picture, (255, 0, 0))
    assert size == [96, 144]
    other_top, other_left, *other_size = area(picture, (0, 0, 255))
    assert (other_top, other_size) == (top, size)
    assert other_left - left >= CELL
    assert area(picture, (0, 0, 0))[0] > top + 96
    assert picture.shape[1] == 2 * left + other_left - left + CELL


def test_plots_have_room_and_stand_two_beside_each_other():
    blue = np.full((760, 1280, 3), (0, 0, 255), np.uint8)
    picture = sheet([("one", [Panel("a", blue), Panel("b", RED), Panel("c", blue[..., [0, 2, 1]])])])
    top, left, high, wide = area(picture, (0, 0, 255))
    assert (high, wide) == (WIDE_CELL * 760 // 1280, WIDE_CELL)
    red_top, red_left, *_ = area(picture, (255, 0, 0))
    assert (red_top, red_left) == (top, left + WIDE_CELL + GAP)
    green_top, green_left, *_ = area(picture, (0, 255, 0))
    assert green_top > top + high
    assert green_left == left


def test_titles_and_texts_are_drawn_and_long_ones_end():
    def ink(rows):
        return int((sheet(rows) < 120).all(-1).sum())

    assert ink([("", [Panel("", "")])]) < ink([("title", [Panel("", "")])]) < ink([("title", [Panel("", "text")])])
    whole, cut, longer = (len(sheet([("", [Panel("", "line\n" * count)])])) for count in (70, MOST_LINES, 1000))
    assert whole < cut == longer < MOST_LINES * LINE_HEIGHT + 120
    assert len(sheet([("long " * 1000, [Panel("long " * 1000, "x" * 5000)])])) <= cut


def test_a_text_that_is_cut_says_how_much_is_missing(monkeypatch):
    drawn = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, at, line, **how: drawn.append(line))
    sheet([("", [Panel("", "\n".join(f"line {i}" for i in range(100)))])])
    assert drawn[78:80] == ["line 78", "… and 21 more lines"]


def test_no_line_is_wider_than_its_room():
    text = "def f(x):\n    return " + "long " * 40 + "\n\ttab \x1b[31m\n" + "W" * 100
    lines = wrapped(text, 200, 13)
    assert max(font(13).getlength(line) for line in lines) <= 200
    assert lines[0] == "def f(x):"
    assert lines[1].startswith("    return long")
    assert "".join(lines).replace("\N{REPLACEMENT CHARACTER}", "\x1b") == text.replace("\n", "").replace("\t", "    ")
    assert clipped("short", 200, 13) == "short"
    cut = clipped("long " * 100, 200, 13)
    assert cut.endswith("…")
    assert font(13).getlength(cut) <= 200


def test_a_page_shows_the_first_answers_and_counts_the_others():
    page = AnswerPage("<run>", "said")
    assert "0 answers" in page.html()
    for number in range(MOST_SHOWN + 5):
        page.add(Answer(f"n{number}", {}, None, [Panel("input", RED)]))
    html = page.html()
    assert html.count("<img") == MOST_SHOWN
    assert f"the first {MOST_SHOWN} of 205 answers" in html
    assert "<run>" not in html


def test_names_of_files_are_plain_and_each_is_there_once(tmp_path):
    assert plain_name("../../etc/passwd") == "etc-passwd"
    assert plain_name("..") == plain_name("") == "answer"
    assert plain_name("säule 1.png") == "säule-1.png"
    assert len(plain_name("x" * 5000)) < 200
    files = AnswerFiles(tmp_path)
    for name in ("a", "A", "a/", "a-2"):
        files.write(Answer(name, {".json": name, ".gui": "g"}, None))
    assert sorted(os.listdir(tmp_path)) == [
        "A-2.gui", "A-2.json", "a-2-2.gui", "a-2-2.json", "a-3.gui", "a-3.json", "a.gui", "a.json",
    ]  # fmt: skip
    assert (tmp_path / "a-3.json").read_text() == "a/"


def test_nothing_is_written_over(tmp_path):
    write_new(tmp_path / "a", "first")
    with pytest.raises(UsageError, match="a file is there already"):
        write_new(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    with pytest.raises(ResourceError):
        write_new(tmp_path / "nowhere" / "a", "")


def test_folders_are_numbered_on(tmp_path):
    for name in ("7", "x9", "08x"):
        (tmp_path / "all" / name).mkdir(parents=True)
    assert [numbered_folder(tmp_path / "all").name for _ in range(2)] == ["8", "9"]
    assert numbered_folder(tmp_path / "new") == tmp_path / "new" / "1"
    Path(tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        numbered_folder(tmp_path / "file" / "x")


def test_samples_are_spread_over_a_split():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(100, 1) == [0]


@pytest.mark.parametrize(
    ("groups", "count", "most", "indices"),
    [
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], 1, 12, [1, 4, 7]),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], 4, 12, [0, 2, 4, 7]),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], 1, 2, [1, 4]),
        ([7, 5], 6, 12, [1, 0]),
    ],
)
def test_each_group_of_a_split_is_looked_at(groups, count, most, indices):
    class Data(list):
        pass

    data = Data(groups)
    assert chosen(data, count, most) == (spread(len(data), count), 0)
    data.groups = groups
    assert chosen(data, count, most) == (indices, len(set(groups)))
