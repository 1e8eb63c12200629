"""Looking at data: every fault and remark with its rule and place, and figures that are right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainkit.errors import DataError
from trainkit_task_layout.inspection import inspect, short
from trainkit_task_layout.sections import write_sections

DRAWN = Path(__file__).parents[4] / "tests" / "data" / "sketch2code"


@pytest.fixture
def folder(tmp_path):
    write_sections(tmp_path / "data", count=10)
    return tmp_path / "data"


def found(inspection):
    return [(each.rule, each.place, each.is_fault) for each in inspection.findings]


def test_good_data(folder):
    seen = inspect(folder, 64)
    assert seen.source == str(folder)
    assert seen.format == "folders: sample folders with structure.json and layout.json"
    assert seen.samples == {"train": 7, "val": 1, "test": 2}
    assert seen.findings == ()
    assert seen.facts["with boxes"] == "10 of 10"
    assert seen.facts["with structure"] == "10 of 10"
    assert str(seen.facts["picture width"]).startswith("480 to 480")


def test_figures_of_known_data(folder):
    for path in sorted(folder.glob("*/*"))[3:]:
        shutil.rmtree(path)
    for number, path in enumerate(sorted(folder.glob("*/*"))):
        (path / "boxes.json").unlink()
        (path / "structure.json").write_text('{"div.a": {"div.b": {"p": "x", "p": "y"}, "h1": "z"}}')
        heading = ', "heading@h1": ""' if number else ""
        layout = f'{{"section@div.a@div.b": {{"paragraph@p": "", "paragraph@p": ""{heading}}}}}'
        (path / "layout.json").write_text(layout)
    seen = inspect(folder, 64)
    assert seen.facts["layout nodes"] == "3 to 4 (mean 3.67)"
    assert seen.facts["layout depth"] == "2 to 2 (mean 2)"
    assert seen.facts["structure nodes"] == "5 to 5 (mean 5)"
    assert seen.facts["compound keys"] == 3.0
    assert seen.facts["distinct compound keys"] == 1.0
    assert seen.facts["bases"] == 3.0
    assert seen.facts["most frequent bases"] == "paragraph 6, section 3, heading 2"
    assert seen.facts["with boxes"] == "0 of 3"


def test_every_fault_and_remark_is_found(folder):
    train = sorted((folder / "train").iterdir())
    (train[0] / "screenshot.png").write_bytes(b"")
    (train[0] / "layout.json").write_text("{")
    (train[1] / "layout.json").write_text('{"sektion@nav.none": ""}')
    (train[2] / "screenshot.png").unlink()
    with Image.open(train[3] / "screenshot.png") as picture:
        picture.convert("RGB").save(train[3] / "screenshot.jpg", quality=95)
    shutil.copytree(train[4], folder / "val" / "copy")
    seen = inspect(folder, 64)
    assert sorted(found(seen)) == sorted([
        ("picture", "train/section-0000/screenshot.png", True),
        ("JSON", "train/section-0000/layout.json", True),
        ("base", "train/section-0001/layout.json", True),
        ("sources", "train/section-0001/layout.json", True),
        ("file", "train/section-0002/screenshot.png", True),
        ("picture", "train/section-0003/screenshot.jpg", False),
        ("duplicate across splits", "val/copy", True),
    ])  # fmt: skip
    assert seen.samples == {"train": 4, "val": 1, "test": 2}


def test_too_few_samples_are_a_fault_too(folder):
    for path in [*sorted((folder / "train").iterdir())[1:], *(folder / "val").iterdir(), *(folder / "test").iterdir()]:
        shutil.rmtree(path)
    seen = inspect(folder, 64)
    assert seen.samples == {"train": 1}
    assert seen.findings[-1].rule == "splits"
    assert "one training sample, and none to validate on" in seen.findings[-1].text


def test_all_samples_bad(folder):
    for path in folder.glob("*/*/layout.json"):
        path.write_text("[]")
    seen = inspect(folder, 64)
    assert sum(each.is_fault for each in seen.findings) == 11
    assert seen.samples == {}
    assert seen.facts == {}


@pytest.mark.parametrize("seed", range(40))
def test_damage_of_any_kind_is_told_and_never_raised(mixed, tmp_path, seed):
    """One file is cut, overwritten, shortened or gets something inserted, by chance."""
    data = tmp_path / "damaged"
    shutil.copytree(mixed, data)
    rng = np.random.default_rng(seed)
    files = sorted(path for path in data.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    match seed % 4:
        case 0:
            del content[place:]
        case 1:
            content[place] = int(rng.integers(256))
        case 2:
            del content[place : place + 20]
        case _:
            content[place:place] = (b"{", b"NaN", b"1e999", b"\x00", b'"', b"\\ud800", b"\xff")[seed % 7]
    path.write_bytes(content)
    seen = inspect(data, 32)
    assert sum(seen.samples.values()) >= 4
    assert all(each.place and each.text.isprintable() for each in seen.findings)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Return five sample folders, their screenshots in three formats."""
    folder = tmp_path_factory.mktemp("mixed") / "data"
    write_sections(folder, count=5)
    for number, path in enumerate(sorted(folder.rglob("screenshot.png"))):
        suffix = ("png", "jpg", "webp")[number % 3]
        with Image.open(path) as picture:
            picture.load()
        path.unlink()
        picture.save(path.with_suffix(f".{suffix}"))
    return folder


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(DataError, match="no samples were found"):
        inspect(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        inspect(tmp_path / "nowhere")


def test_boxes(tmp_path):
    seen = inspect(DRAWN, 64)
    assert seen.format.startswith("boxes: ")
    assert seen.facts["with boxes"] == "6 of 6"
    assert seen.facts["with structure"] == "0 of 6"
    screens = [
        {
            "screen_id": str(i),
            "screen_elements": [{"label": "A", "xmin": 0, "ymin": 0, "xmax": 0.1 + i / 50, "ymax": 1}],
        }
        for i in range(10)
    ]
    (tmp_path / "test.json").write_text(json.dumps([*screens, {"screen_id": "x", "screen_elements": []}]))
    seen = inspect(tmp_path, format="boxes")
    assert seen.facts["with picture"] == "0 of 10"
    assert ("empty", "test.json", False) in found(seen)


@pytest.mark.parametrize(
    ("value", "text"), [(0.9014, "0.901"), (12.84, "12.8"), (1214.4, "1214"), (100, "100"), (4, "4")]
)
def test_means_are_written_without_exponents(value, text):
    assert short(value) == text
