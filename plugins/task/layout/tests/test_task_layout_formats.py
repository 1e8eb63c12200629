"""Envelopes, box sets, and which of the formats a folder has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainkit.errors import DataError
from trainkit_task_layout.boxsets import key_of
from trainkit_task_layout.detect import read_data
from trainkit_task_layout.folders import FILES
from trainkit_task_layout.geometry import corners
from trainkit_task_layout.sections import write_sections
from trainkit_task_layout.tree import TARGET_KEY, Invalid, dump_tree, walk

REPOSITORY = Path(__file__).parents[4]
PAIRS = REPOSITORY / "tests" / "data" / "pix2code-web"
DRAWN = REPOSITORY / "tests" / "data" / "sketch2code"
SHARED = REPOSITORY.parent / "shared" / "data" / "layout"


def read(data, on_bad_sample="stop", max_bad_fraction=0.01, format="auto"):
    return read_data(data, 64, on_bad_sample, max_bad_fraction, format)


def refused(data, **options):
    with pytest.raises(DataError) as caught:
        read(data, **options)
    assert caught.value.exit_code == 5
    return str(caught.value)


def remarks(data):
    return "\n".join(read(data).warnings)


def lengths(splits):
    return {name: len(part) for name, part in splits.items()}


@pytest.fixture
def folders(tmp_path):
    write_sections(tmp_path / "folders", count=10)
    return tmp_path / "folders"


def enveloped(folder, root):
    """Write a sample folder as an envelope, and return its id."""
    name = folder.name
    target = root / name
    target.mkdir(parents=True)
    for kept in ("screenshot.png", "boxes.json"):
        shutil.copy(folder / kept, target / kept)
    with Image.open(folder / "screenshot.png") as picture:
        width, height = picture.size
    layout = (folder / "layout.json").read_text()
    layout = layout if '"structure"' in layout else f'{{"structure": {layout}, "props": {{}}}}'
    # Dumped by hand, as equal sibling keys would collapse in a dict.
    split = layout.rindex(', "props"')
    text = (
        f'{{"id": "{name}", "screenshot": {{"path": "screenshot.png", "width": {width}, "height": {height}}}, '
        f'"structure": {{"type": "HTMLObject", "data": {(folder / "structure.json").read_text()}}}, '
        f'"layout": {{"type": "SectionLayout", "data": {layout[:split]}}}{layout[split:-1]}}}}}'
    )
    (target / "example.json").write_text(text)
    return name


@pytest.fixture
def envelopes(folders, tmp_path):
    root = tmp_path / "envelopes"
    ids = {part: [enveloped(f, root) for f in sorted((folders / part).iterdir())] for part in ("train", "val", "test")}
    listing = "\n".join(f"  {part}: [{', '.join(names)}]" for part, names in ids.items())
    (root / "dataset_config.yaml").write_text(f"# which sample is in which split\nsplits:\n{listing}\n")
    return root


# --- envelopes ------------------------------------------------------------------------------------------------------


def test_envelopes_hold_what_sample_folders_hold(folders, envelopes):
    given, found = read(folders), read(envelopes)
    assert lengths(found) == lengths(given) == {"train": 7, "val": 1, "test": 2}
    assert found.warnings == ()
    assert found.train.ids[0] == "section-0000"
    for one, other in zip(given.train.samples, found.train.samples, strict=True):
        assert dump_tree(one["structure"]) == dump_tree(other["structure"])
        assert one["layout"] == other["layout"]
        assert one["props"] == other["props"]
        assert np.array_equal(one["image"], other["image"])
        assert one["hashes"] == other["hashes"]
    assert any(sample["props"] for sample in found.train.samples)


def test_envelopes_below_folders_and_with_shared_pictures(envelopes, tmp_path):
    root = tmp_path / "deep"
    shutil.copytree(envelopes, root / "examples")
    (root / "examples" / "dataset_config.yaml").rename(root / "dataset_config.yaml")
    (root / "screenshots").mkdir()
    example = root / "examples" / "section-0000"
    (example / "screenshot.png").rename(root / "screenshots" / "first.png")
    edit(example, '"path": "screenshot.png"', '"path": "screenshots/first.png"')
    assert lengths(read(root)) == {"train": 7, "val": 1, "test": 2}


def test_envelopes_without_a_manifest(envelopes, folders, tmp_path):
    (envelopes / "dataset_config.yaml").unlink()
    assert "no dataset_config.yaml: the samples were divided 80/10/10" in remarks(envelopes)
    root = tmp_path / "parts"
    for part in ("train", "val", "test"):
        (root / part).mkdir(parents=True)
        for folder in (folders / part).iterdir():
            (envelopes / folder.name).rename(root / part / folder.name)
    assert lengths(read(root)) == {"train": 7, "val": 1, "test": 2}
    assert "the folders train/, val/ and test/ are the splits" in remarks(root)


def edit(folder, old, new):
    text = (folder / "example.json").read_text()
    assert old in text
    (folder / "example.json").write_text(text.replace(old, new))


ENVELOPE_FAULTS = {
    "broken": ('{"id"', '{"id', "Expecting"),
    "a list": ('{"id"', '[{"id"', "Expecting"),
    "no id": ('"id": "section-0002"', '"name": "section-0002"', '"id" must be a text, found null'),
    "a key twice": ('{"id"', '{"id": "x", "id"', "'id' stands twice"),
    "an id of signs": (
        '"id": "section-0002"',
        '"id": "\\ud800"',
        '"id" must be a text, found one that cannot be printed',
    ),
    "a truth value for an id": ('"id": "section-0002"', '"id": true', '"id" must be a text, found a truth value'),
    "no picture": ('"path": "screenshot.png"', '"path": "other.png"', "missing"),
    "no path": ('"path": "screenshot.png"', '"path": 3', '"screenshot" needs a "path"'),
    "picture outside": ('"path": "screenshot.png"', '"path": "../../../../etc/hostname"', "missing"),
    "wrong width": ('"width": 480', '"width": 481', "the picture has 480 x"),
    "wrong structure type": ('"HTMLObject"', '"HTML"', '"structure" has the type \'HTML\'; expected "HTMLObject"'),
    "wrong layout type": ('"SectionLayout"', '"Layout"', 'expected "SectionLayout"'),
    "no structure": ('"structure": {"type"', '"html": {"type"', 'expected an object for "structure", found null'),
    "unknown base": ('"section@', '"sektion@', "did you mean 'section'"),
    "props of numbers": ('"props": {', '"props": {"bx": 3, ', '"props" must be an object of texts'),
}


@pytest.mark.parametrize("fault", ENVELOPE_FAULTS)
def test_a_bad_envelope_stops_and_is_left_out_on_request(envelopes, fault):
    old, new, reason = ENVELOPE_FAULTS[fault]
    edit(envelopes / "section-0002", old, new)
    if fault == "picture outside":
        reason = "a link that leads out of the data folder" if Path("/etc/hostname").exists() else reason
        edit(envelopes / "section-0002", "../../../../etc/hostname", "../../../../../../../../../../etc/hostname")
    message = refused(envelopes)
    assert "section-0002/" in message
    assert reason in message
    splits = read(envelopes, on_bad_sample="skip", max_bad_fraction=0.3)
    assert lengths(splits) == {"train": 6, "val": 1, "test": 2}
    assert reason in splits.skipped[0][1]


def test_swapped_trees_of_an_envelope_are_read_as_meant(envelopes):
    whole = read(envelopes).train[0]
    path = envelopes / "section-0000" / "example.json"
    text = path.read_text()
    text = text.replace('"structure": {"type"', '"X": {"type"', 1).replace('"layout": {', '"structure": {', 1)
    path.write_text(text.replace('"X": {', '"layout": {', 1))
    splits = read(envelopes)
    assert splits.warnings == ('section-0000/example.json: "structure" and "layout" were swapped; read as meant',)
    assert splits.train[0]["layout"] == whole["layout"]


def test_samples_and_manifest_that_do_not_match(envelopes):
    manifest = envelopes / "dataset_config.yaml"
    manifest.write_text(manifest.read_text().replace("section-0001", "section-9999"))
    message = refused(envelopes)
    assert "dataset_config.yaml: no example.json has the id 'section-9999'" in message
    splits = read(envelopes, on_bad_sample="skip", max_bad_fraction=0.2)
    assert len(splits.train) == 6
    assert any("names 'section-0001' in no split: left out" in line for line in splits.warnings)


def test_an_id_that_two_envelopes_have(envelopes):
    edit(envelopes / "section-0001", '"id": "section-0001"', '"id": "section-0000"')
    assert "the id of section-0000/example.json again" in refused(envelopes)


def test_an_empty_split_of_the_manifest_is_remarked(envelopes):
    manifest = envelopes / "dataset_config.yaml"
    before, _, _ = manifest.read_text().partition("  test:")
    manifest.write_text(before + "  test: []\n")
    text = remarks(envelopes)
    assert "no sample is listed in 'test'" in text
    assert "names 'section-0008' in no split: left out" in text


def test_ids_are_taken_as_they_are_written(envelopes):
    (envelopes / "section-0000").rename(envelopes / "007")
    edit(envelopes / "007", '"id": "section-0000"', '"id": "007"')
    manifest = envelopes / "dataset_config.yaml"
    manifest.write_text(manifest.read_text().replace("section-0000", "007"))
    assert read(envelopes).train.ids[0] == "007"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("splits: [a, b]", "expected 'splits' to be a mapping"),
        ("just a text", "expected the file to be a mapping"),
        ("", "expected the file to be a mapping"),
        ("splits: {train: [a], validation: [b]}", "'validation' is not a split: train, val, test"),
        ("splits: {train: a}", "line 1: expected 'train' to be a list of ids"),
        ("splits: {train: [[a]]}", "expected 'train' to be a list of ids"),
        ("splits: {train: [a], train: [b]}", "a key that stands twice"),
        ("splits: {train: [a, b], val: [a]}", "'a' is listed in train and in val"),
        ("splits: {train: [a", "expected ',' or ']'"),
        ("splits: " + "[" * 5000, "nested too deeply"),
        ("splits: !!python/object/apply:os.system [ls]", "expected 'splits' to be a mapping"),
    ],
)
def test_manifests_that_cannot_be_read(envelopes, text, reason):
    (envelopes / "dataset_config.yaml").write_text(text)
    message = refused(envelopes)
    assert "the manifest cannot be read" in message
    assert reason in message
    assert "splits: {train: [ID, ...]" in message


# --- box sets -------------------------------------------------------------------------------------------------------


def test_drawn_pages_with_boxes():
    splits = read(DRAWN)
    assert lengths(splits) == {"train": 4, "val": 1, "test": 1}
    entries = {entry["id"]: entry for entry in json.loads((DRAWN / "dataset.json").read_text())}
    for _, part in splits.items():
        for sample in part.samples:
            entry = entries[sample["id"]]
            assert sample["size"] == (entry["width"], entry["height"])
            assert sample["layout"]["key"] == ""
            assert sample["structure"] is None
            square = max(entry["width"], entry["height"])
            expected = sorted(
                (r["tagName"], *np.array([r["left"] * entry["width"], r["top"] * entry["height"]]) / square)
                for r in entry["regions"]
            )
            found = sorted(
                (child["attributes"]["label"], *corners(child["attributes"]["box"])[:2])
                for child in sample["layout"]["children"]
            )
            assert [label for label, *_ in found] == [label for label, *_ in expected]
            for (_, *one), (_, *other) in zip(found, expected, strict=True):
                assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.skipif(not (SHARED / "sketch2code").is_dir(), reason="sketch2code is not in ../shared/data/layout")
def test_all_of_sketch2code():
    splits = read(SHARED / "sketch2code")
    assert lengths(splits) == {"train": 48, "val": 6, "test": 6}
    assert sum(len(sample["layout"]["children"]) for _, part in splits.items() for sample in part.samples) == 770
    assert "JPEG picture whatever its name says" in splits.warnings[0]


@pytest.mark.skipif(not (SHARED / "rico-semantics").is_dir(), reason="rico-semantics is not in ../shared/data/layout")
def test_all_of_rico_semantics():
    splits = read(SHARED / "rico-semantics")
    assert sum(lengths(splits).values()) == 4277 - 918
    assert min(lengths(splits).values()) == 336
    assert any("918 entries have no elements and were left out" in line for line in splits.warnings)
    bases = {
        child["key"] for _, part in splits.items() for sample in part.samples for child in sample["layout"]["children"]
    }
    assert len(bases) == 36


@pytest.mark.skipif(not (SHARED / "pix2code-web").is_dir(), reason="pix2code-web is not in ../shared/data/layout")
def test_all_of_pix2code_web_but_its_seven_blank_pages():
    splits = read(SHARED / "pix2code-web", on_bad_sample="skip")
    assert lengths(splits) == {"train": 995, "val": 123, "test": 125}
    assert len(splits.skipped) == 7
    assert all("a blank picture" in why for _, why in splits.skipped)


def element(label, xmin, ymin, xmax, ymax):
    return {"label": label, "xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}


def screens(count=20):
    """Return made-up screens, each with a menu, a search and, in every third one, a row of two more."""
    found = []
    for number in range(count):
        shift = number / 100
        elements = [
            element("ICON_B:SEARCH", 0.8, 0.02, 0.9, 0.08),
            element("ICON_A_B:MENU", 0.1, 0.01, 0.2, 0.07 + shift),
        ]
        elements += [element("ICON_C", 0.6, 0.5, 0.7, 0.6), element("ICON_D", 0.1, 0.52, 0.2, 0.61)] * (number % 3 == 0)
        found.append({"screen_id": str(number), "screen_elements": elements})
    return found


def write(folder, value, name="test.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))
    return folder


def test_screens_without_pictures(tmp_path):
    empty = {"screen_id": "none", "screen_elements": []}
    splits = read(write(tmp_path / "rico", [*screens(), empty]))
    assert lengths(splits) == {"train": 16, "val": 2, "test": 2}
    assert "test.json: 1 entries have no elements and were left out (the first is entry 21)" in splits.warnings
    by_id = {sample["id"]: sample for _, part in splits.items() for sample in part.samples}
    first = by_id["0"]
    assert first["image"] is None
    assert first["size"] is None
    # Two rows, each from left to right, whatever their order in the file.
    keys = [child["key"] for child in first["layout"]["children"]]
    assert keys == ["icon-a-b--menu", "icon-b--search", "icon-d", "icon-c"]
    assert first["layout"]["children"][1]["attributes"]["label"] == "ICON_B:SEARCH"
    assert first["layout"]["children"][1]["attributes"]["box"] == pytest.approx([0.85, 0.05, 0.1, 0.06])


def test_box_lists_named_after_the_parts_are_the_splits(tmp_path):
    folder = write(tmp_path / "rico", screens(6), "train.json")
    write(folder, [{**screen, "screen_id": f"v{screen['screen_id']}"} for screen in screens(9)[6:8]], "val.json")
    write(folder, screens(12)[10:], "more.json")
    splits = read(folder)
    assert lengths(splits) == {"train": 6, "val": 2}
    assert splits.warnings == ("more.json: left out: train.json, val.json and test.json are the splits",)


def test_equal_screens_stay_together_and_copies_across_files_are_faults(tmp_path):
    twins = [{**screen, "screen_id": f"twin-{screen['screen_id']}"} for screen in screens()]
    splits = read(write(tmp_path / "rico", [*screens(), *twins]))
    parts = {name: {sample["id"] for sample in part.samples} for name, part in splits.items()}
    assert all((f"twin-{number}" in parts["val"]) == (str(number) in parts["val"]) for number in range(20))
    folder = write(tmp_path / "named", screens(6), "train.json")
    write(folder, [{**screens(1)[0], "screen_id": "v"}, {**screens(9)[8], "screen_id": "w"}], "val.json")
    assert "val.json, entry 1: a copy of train sample 0, byte for byte" in refused(folder)


BOX_FAULTS = {
    "no box": ({"label": "A"}, "expected numbers for xmin, ymin, xmax, ymax"),
    "upside down": (element("A", 0.5, 0.5, 0.4, 0.6), "is no box between 0 and 1"),
    "outside": (element("A", 0.5, 0.5, 0.6, 1.6), "= 0.5, 0.5, 0.6, 1.6 is no box between 0 and 1"),
    "endless": (element("A", 0.5, 0.5, 0.6, 1e400), "is no box|JSON"),
    "no label": (element(None, 0.1, 0.1, 0.2, 0.2), '"tagName" or "label" must be a text, found null'),
    "a label of signs": (element("!?", 0.1, 0.1, 0.2, 0.2), "'!?' cannot be written as a key"),
    "two labels, one key": (element("icon a:b", 0.1, 0.1, 0.2, 0.2), "would both be the key 'icon-a--b'"),
    "a text": ("A", "expected an object for an element, found a text"),
}


@pytest.mark.parametrize("fault", BOX_FAULTS)
def test_a_bad_entry_is_named(tmp_path, fault):
    bad, reason = BOX_FAULTS[fault]
    found = screens()
    found[0]["screen_elements"].append(element("ICON_A:B", 0.3, 0.3, 0.4, 0.4))
    found[4]["screen_elements"].append(bad)
    folder = write(tmp_path / "rico", found)
    if fault == "endless":
        (folder / "test.json").write_text(json.dumps(found).replace("Infinity", "1e400"))
        reason = "is no box between 0 and 1"
    message = refused(folder)
    assert "1 of 20 samples cannot be used" in message
    assert "test.json: entry 5: " in message
    assert reason in message
    assert sum(lengths(read(folder, on_bad_sample="skip", max_bad_fraction=0.05)).values()) == 19


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"screen_elements": [element("A", 0, 0, 1, 1)]}, '"id" or "screen_id" must be a text, found null'),
        ({"screen_id": "3", "screen_elements": [element("A", 0, 0, 1, 1)]}, "the id '3' stands twice"),
        ({"screen_id": "x"}, 'expected a list "regions" or "screen_elements", found null'),
        (["x"], "expected an object for an entry, found a list"),
    ],
)
def test_entries_that_are_none(tmp_path, entry, reason):
    assert reason in refused(write(tmp_path / "rico", [*screens(), entry]))


def test_box_lists_that_are_no_json(tmp_path):
    folder = write(tmp_path / "rico", screens())
    (folder / "test.json").write_text("[{]")
    message = refused(folder)
    assert "a list of boxes cannot be read" in message
    assert "Expecting property name" in message


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder, name: next(folder.glob(f"images/{name}.*")).unlink(), ".png: missing"),
        (lambda folder, name: Image.new("L", (9, 9)).save(folder / f"images/{name}.png"), "a blank picture"),
        (
            lambda folder, name: Image.effect_noise((90, 70), 40).save(folder / f"images/{name}.png"),
            "pixels are recorded, images/",
        ),
    ],
)
def test_bad_pictures_of_drawn_pages(tmp_path, damage, reason):
    folder = tmp_path / "drawn"
    shutil.copytree(DRAWN, folder)
    damage(folder, json.loads((folder / "dataset.json").read_text())[1]["id"])
    message = refused(folder)
    assert "1 of 6 samples cannot be used" in message
    assert reason in message


def test_the_name_of_a_picture_leads_nowhere_else(tmp_path):
    folder = tmp_path / "drawn"
    shutil.copytree(DRAWN, folder)
    entries = json.loads((folder / "dataset.json").read_text())
    entries[1]["id"] = "../secret"
    write(folder, entries, "dataset.json")
    assert "entry 2: '../secret' is not the name of a picture" in refused(folder)


@pytest.mark.parametrize(
    ("label", "key"),
    [
        ("Label", "label"),
        ("CheckBox", "check-box"),
        ("ComboBox", "combo-box"),
        ("HTMLText", "html-text"),
        ("ICON_THREE_BARS:MENU", "icon-three-bars--menu"),
        ("ICON_X:CLOSE", "icon-x--close"),
        ("radio button", "radio-button"),
        ("h1", "h1"),
    ],
)
def test_keys_of_labels(label, key):
    assert key_of(label) == key
    assert TARGET_KEY.fullmatch(key)


@pytest.mark.parametrize("label", ["", "1st", "a$b", "a@b", "Ünder", ":", "x:"])
def test_labels_that_are_no_keys(label):
    with pytest.raises(Invalid, match="cannot be written as a key"):
        key_of(label)


# --- which format ---------------------------------------------------------------------------------------------------


def test_two_formats_at_once_are_refused_and_either_can_be_chosen(folders):
    shutil.copytree(PAIRS / "all_data", folders / "all_data")
    shutil.copytree(PAIRS / "splits", folders / "splits")
    message = refused(folders)
    assert "the data has 2 formats at once: folders and pix2code" in message
    assert "--set task.format=folders" in message
    assert "pairs NAME.png and NAME.gui" in message
    assert lengths(read(folders, format="folders")) == {"train": 7, "val": 1, "test": 2}
    assert lengths(read(folders, format="pix2code")) == {"train": 16, "val": 4, "test": 4}


def test_every_pair_of_formats_is_refused(folders, envelopes, tmp_path):
    made = {"folders": folders, "envelope": envelopes, "pix2code": PAIRS, "boxes": DRAWN}
    names = list(made)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = tmp_path / f"{one}-{other}"
            shutil.copytree(made[one], both)
            shutil.copytree(made[other], both, dirs_exist_ok=True)
            assert f"2 formats at once: {one} and {other}" in refused(both)


def test_a_format_that_the_data_does_not_have(folders, tmp_path):
    message = refused(folders, format="boxes")
    assert "the data does not have the format 'boxes': JSON lists of elements with boxes" in message
    assert "--set task.format=folders" in message
    (tmp_path / "empty").mkdir()
    message = refused(tmp_path / "empty", format="boxes")
    assert "found: none of folders, envelope, pix2code, boxes" in message
    assert "name another folder with --data" in message


def test_other_files_beside_the_samples_are_no_format(folders):
    (folders / "notes.json").write_text('{"made": "by hand"}')
    (folders / "README.md").write_text("# pages")
    assert lengths(read(folders)) == {"train": 7, "val": 1, "test": 2}


def test_sample_folders_with_an_envelope_inside_are_both(folders):
    for part in ("train", "val", "test"):
        for folder in (folders / part).iterdir():
            (folder / "example.json").write_text("{}")
    assert "formats at once: folders and envelope" in refused(folders)
    assert all((folder / name).exists() for folder in (folders / "train").iterdir() for name in FILES)
    assert len(read(folders, format="folders").train) == 7


def test_every_layout_is_whole(envelopes):
    for _, part in read(envelopes).items():
        for sample in part.samples:
            assert all(len(current["attributes"]["box"]) == 4 for current in walk(sample["layout"]))
