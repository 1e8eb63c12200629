"""Reading sample folders and pix2code pairs: splits, pictures, and one clear message for whatever cannot be used."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainkit.errors import DataError
from trainkit_task_layout import files
from trainkit_task_layout.detect import read_data
from trainkit_task_layout.files import Fault
from trainkit_task_layout.pictures import decode_image, letterbox
from trainkit_task_layout.pix2code import parse_gui
from trainkit_task_layout.sections import write_sections
from trainkit_task_layout.splits import divide
from trainkit_task_layout.tree import dump_tree, parse_structure, walk

REPOSITORY = Path(__file__).parents[4]
PAIRS = REPOSITORY / "tests" / "data" / "pix2code-web"
ALL_PAIRS = REPOSITORY.parent / "shared" / "data" / "layout" / "pix2code-web"


@pytest.fixture
def folder(tmp_path):
    write_sections(tmp_path / "data", count=10)
    return tmp_path / "data"


def read(data, on_bad_sample="stop", max_bad_fraction=0.01, format="auto"):
    return read_data(data, 64, on_bad_sample, max_bad_fraction, format)


def refused(data, **options):
    with pytest.raises(DataError) as caught:
        read(data, **options)
    assert caught.value.exit_code == 5
    return str(caught.value)


def sample(folder, part="train", number=0):
    return sorted((folder / part).iterdir())[number]


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed=0, shape=(20, 30, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


# --- what can be read ---------------------------------------------------------------------------------------------


def test_sample_folders(folder):
    splits = read(folder)
    assert [(name, len(part)) for name, part in splits.items()] == [("train", 7), ("val", 1), ("test", 2)]
    assert splits.train.ids[0] == "train/section-0000"
    first = splits.train[0]
    assert first["image"].shape == (64, 64, 3)
    assert first["image"].dtype == np.uint8
    boxes = np.array([current["attributes"]["box"] for current in walk(first["structure"])])
    assert boxes.shape[1] == 4
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert first["size"][0] == 480
    assert splits.warnings == ()
    assert splits.skipped == ()


def test_boxes_stand_where_the_picture_shows_them(folder):
    """A photo is drawn in blue and green; its box must cover exactly that."""
    found = 0
    for part in ("train", "val", "test"):
        for path in (folder / part).iterdir():
            splits_sample = json.loads((path / "boxes.json").read_text())
            structure = files.read_text(path / "structure.json", folder.resolve())
            picture = np.asarray(Image.open(path / "screenshot.png"))
            for current, (x, y, width, height) in zip(walk(parse_structure(structure)), splits_sample, strict=True):
                if current["key"] in ("img", "img.photo"):
                    left, top = (x - width / 2) * picture.shape[1], (y - height / 2) * picture.shape[0]
                    assert picture[int(top) + 3, int(left) + 3].tolist() == [173, 205, 235]
                    found += 1
    assert found > 0


def test_fingerprint_follows_the_content(folder):
    before = read(folder).fingerprint
    assert read(folder).fingerprint == before
    path = sample(folder) / "structure.json"
    path.write_text(path.read_text().replace("open", "shut").replace("light", "heavy").replace("new", "old"))
    assert read(folder).fingerprint != before


def test_sample_folders_without_parts_are_divided_by_hash(folder, tmp_path):
    flat = tmp_path / "flat"
    for part in ("train", "val", "test"):
        for path in (folder / part).iterdir():
            flat.mkdir(exist_ok=True)
            path.rename(flat / path.name)
    splits = read(flat)
    assert [len(part) for _, part in splits.items()] == [8, 1, 1]
    assert "80/10/10" in splits.warnings[0]


def test_pix2code_pairs_with_lists():
    splits = read(PAIRS)
    assert [(name, len(part)) for name, part in splits.items()] == [("train", 16), ("val", 4), ("test", 4)]
    assert splits.train[0]["structure"] is None
    assert splits.train[0]["layout"]["children"][0]["key"] == "header"
    assert splits.train[0]["size"] == (256, 256)
    assert splits.train.quality == [1.0] * 16


def test_gui_round_trip_keeps_every_word():
    for path in (PAIRS / "all_data").glob("*.gui"):
        words = [word for word in path.read_text().replace(",", " ").split() if word not in "{}"]
        assert [current["key"] for current in walk(parse_gui(path.read_text()))][1:] == words


def test_pix2code_pairs_without_lists_keep_equal_pages_together(tmp_path):
    for path in (PAIRS / "all_data").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    splits = read(tmp_path)
    assert [len(part) for _, part in splits.items()] == [20, 2, 2]
    pages = [{json.dumps(item["layout"]) for item in part.samples} for _, part in splits.items()]
    assert not pages[0] & pages[1]
    assert not pages[0] & pages[2]


def test_division_keeps_groups_and_leaves_no_part_empty():
    samples = [{"id": str(i), "hashes": {"layout": f"page-{i % 3}"}} for i in range(30)]
    parts = divide(samples)
    assert all(parts.values())
    assert sum(map(len, parts.values())) == 30
    assert divide(list(reversed(samples))) == parts
    two = divide(samples[:2])
    assert [len(two[name]) for name in ("train", "val", "test")] == [1, 1, 0]


@pytest.mark.skipif(not ALL_PAIRS.is_dir(), reason="the full pix2code-web data is not in ../shared/data/layout")
def test_all_of_pix2code_web_parses():
    counts = []
    for path in (ALL_PAIRS / "all_data").glob("*.gui"):
        layout = parse_gui(path.read_text())
        counts.append(sum(1 for _ in walk(layout)) - 1)
    assert len(counts) == 1250
    assert 8 <= min(counts) < max(counts) <= 80


def test_training_part_lends_validation_samples_when_there_are_none(folder):
    for path in (folder / "val").iterdir():
        path.rename(folder / "train" / f"moved-{path.name}")
    splits = read(folder)
    assert [len(part) for _, part in splits.items()] == [7, 1, 2]
    assert "val: the folder is there, and no sample in it" in splits.warnings
    assert "no validation samples: 1 of the 8 training samples serve as such" in splits.warnings


# --- what is repaired with a word ---------------------------------------------------------------------------------


def test_swapped_files_are_read_as_meant(folder):
    whole = read(folder)
    path = sample(folder)
    structure, layout = (path / "structure.json").read_text(), (path / "layout.json").read_text()
    (path / "structure.json").write_text(layout)
    (path / "layout.json").write_text(structure)
    splits = read(folder)
    assert splits.warnings == ("train/section-0000: structure.json and layout.json were swapped; read as meant",)
    assert dump_tree(splits.train[0]["layout"]) == dump_tree(whole.train[0]["layout"])


# --- folders that cannot be read ------------------------------------------------------------------------------------


def test_missing_folder(tmp_path):
    assert "does not exist" in refused(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "data.csv").write_text("a,b")
    assert "not a folder" in refused(tmp_path / "data.csv")


def test_empty_folder(tmp_path):
    message = refused(tmp_path)
    assert "no samples were found" in message
    assert "screenshot.png, structure.json and layout.json" in message


def test_unreadable_folder(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "a folder cannot be read" in refused(folder)


def test_unreadable_file(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    message = refused(folder)
    assert "10 of 10 samples" in message
    assert "train/section-0000/screenshot.png: Permission denied" in message


def test_one_sample(folder, tmp_path):
    one = tmp_path / "one" / "train"
    one.mkdir(parents=True)
    sample(folder).rename(one / "only")
    message = refused(tmp_path / "one")
    assert "one training sample, and none to validate on" in message
    assert "val/" in message


def test_no_training_samples(folder):
    for path in list((folder / "train").iterdir()):
        path.rename(folder / "val" / f"moved-{path.name}")
    assert "no training samples" in refused(folder)


def test_training_samples_that_are_all_the_same(folder, tmp_path):
    same = tmp_path / "same" / "train"
    for number in range(3):
        (same / f"copy-{number}").mkdir(parents=True)
        for name in ("screenshot.png", "structure.json", "layout.json"):
            (same / f"copy-{number}" / name).write_bytes((sample(folder) / name).read_bytes())
    assert "all training samples are the same" in refused(tmp_path / "same")


@pytest.mark.parametrize("part", ["val", "test"])
def test_copies_of_training_samples_in_other_parts(folder, part):
    copy = sample(folder, part)
    (copy / "screenshot.png").write_bytes((sample(folder) / "screenshot.png").read_bytes())
    message = refused(folder)
    assert "1 of 10 samples cannot be used" in message
    assert f"{part}/{copy.name}: a copy of train sample train/section-0000, byte for byte" in message
    if part == "val":
        sample(folder, "test", 1).rename(folder / "val" / "more")
    splits = read(folder, on_bad_sample="skip", max_bad_fraction=0.5)
    assert f"{part}/{copy.name}" not in dict(splits.items())[part].ids
    assert len(splits.train) == 7


def test_copies_between_validation_and_test(folder):
    shutil.copytree(sample(folder, "val"), folder / "test" / "copy")
    assert "test/copy: a copy of val sample val/section-0007" in refused(folder)


def test_likenesses_are_remarks(folder):
    shutil.copytree(sample(folder), folder / "train" / "twin")
    held_out = sample(folder, "val")
    with Image.open(sample(folder) / "screenshot.png") as picture:
        picture.save(held_out / "screenshot.png", compress_level=9, optimize=True)
    other = sample(folder, "test")
    for name in ("structure.json", "layout.json", "boxes.json"):
        (other / name).write_bytes((sample(folder, number=1) / name).read_bytes())
    assert read(folder).warnings == (
        "train/twin: has the very screenshot of train sample train/section-0000, byte for byte",
        f"test/{other.name}: has the very layout of train sample train/section-0001",
        f"val/{held_out.name}: shows the very picture of train sample train/section-0000",
    )


def test_an_empty_split_is_remarked(folder):
    for path in (folder / "test").iterdir():
        shutil.rmtree(path)
    splits = read(folder)
    assert splits.test is None
    assert splits.warnings == ("test: the folder is there, and no sample in it",)


def test_pictures_that_are_the_same_stay_in_one_part():
    samples = [{"id": str(i), "hashes": {"layout": f"page-{i}", "screenshot": f"picture-{i % 4}"}} for i in range(40)]
    parts = divide(samples)
    places = {name: {each["hashes"]["screenshot"] for each in part} for name, part in parts.items()}
    assert all(places.values())
    assert not places["train"] & (places["val"] | places["test"])
    assert not places["val"] & places["test"]


def test_pairs_that_no_list_names_are_remarked(tmp_path):
    shutil.copytree(PAIRS, tmp_path / "pairs")
    listed = tmp_path / "pairs" / "splits" / "train.txt"
    first, *rest = listed.read_text().split()
    listed.write_text("\n".join(rest))
    splits = read(tmp_path / "pairs")
    assert len(splits.train) == 15
    assert splits.warnings == (f"all_data/{first}.gui: no list in splits/ names it: left out",)


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"train": "a", "val": "a"}, "'a' is listed in train.txt and in val.txt"),
        ({"train": "../secret"}, "is not the name of a pair"),
    ],
)
def test_split_lists_that_cannot_be_meant(tmp_path, lists, reason):
    (tmp_path / "splits").mkdir()
    (tmp_path / "a.gui").write_text("header { }")
    for part, text in lists.items():
        (tmp_path / "splits" / f"{part}.txt").write_text(text)
    assert reason in refused(tmp_path)


# --- samples that cannot be used ------------------------------------------------------------------------------------


def broken_png(path):
    path.write_bytes(path.read_bytes()[:200])


def huge_png(path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def link_out(path):
    path.unlink()
    path.symlink_to("/etc/hostname")


def link_loop(path):
    path.unlink()
    path.symlink_to(path)


FAULTS = {
    "truncated picture": ("screenshot.png", broken_png, "truncated or damaged PNG picture"),
    "cut header": ("screenshot.png", lambda path: path.write_bytes(path.read_bytes()[:20]), "picture"),
    "empty picture": ("screenshot.png", lambda path: path.write_bytes(b""), "an empty picture file (0 bytes)"),
    "text in place of a picture": ("screenshot.png", lambda path: path.write_text("hello"), "not a readable"),
    "a format that is not read": (
        "screenshot.png",
        lambda path: Image.new("RGB", (9, 9)).save(path, "GIF"),
        "not a readable",
    ),
    "decompression bomb": ("screenshot.png", huge_png, "million pixels"),
    "51 megapixels": ("screenshot.png", lambda path: Image.new("1", (10_000, 5_001)).save(path), "10000 x 5001 pixels"),
    "blank picture": ("screenshot.png", lambda path: Image.new("RGB", (50, 40), "white").save(path), "a blank picture"),
    "broken JSON": ("structure.json", lambda path: path.write_text('{"div": '), "Expecting value"),
    "not UTF-8": ("structure.json", lambda path: path.write_bytes(b'{"div\xff": ""}'), "not UTF-8 (byte 5)"),
    "list in place of an object": ("layout.json", lambda path: path.write_text("[]"), "expected an object"),
    "unknown source": (
        "layout.json",
        lambda path: path.write_text('{"section@div.no": ""}'),
        "is not in the structure",
    ),
    "missing file": ("layout.json", lambda path: path.unlink(), "missing"),
    "folder in place of a file": ("layout.json", lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
    "named pipe": ("screenshot.png", fifo, "not a regular file"),
    "link out of the folder": ("screenshot.png", link_out, "a link that leads out of the data folder"),
    "loop of links": ("screenshot.png", link_loop, "link"),
    "wrong number of boxes": ("boxes.json", lambda path: path.write_text("[[0, 0, 1, 1]]"), "1 boxes for"),
    "box outside": ("boxes.json", lambda path: path.write_text("[[0, 0, 1, 7]]"), "between 0 and 1"),
    "box of three numbers": ("boxes.json", lambda path: path.write_text("[[0, 0, 1]]"), "expected a list of"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_sample_stops_by_default_and_is_left_out_on_request(folder, fault):
    name, damage, reason = FAULTS[fault]
    damage(sample(folder, number=2) / name)
    message = refused(folder)
    assert "1 of 10 samples cannot be used" in message
    assert f"train/section-0002/{name}: " in message
    assert reason.lower() in message.lower()
    assert "--set task.on_bad_sample=skip" in message
    splits = read(folder, on_bad_sample="skip", max_bad_fraction=0.1)
    assert len(splits.train) == 6
    assert any(f"train/section-0002/{name}: " in line for line in splits.warnings)
    [(place, why)] = splits.skipped
    assert place == f"train/section-0002/{name}"
    assert reason.lower() in why.lower()


def test_all_faults_of_a_sample_are_told(folder):
    broken_png(sample(folder) / "screenshot.png")
    (sample(folder) / "layout.json").write_text("{")
    message = refused(folder)
    assert "1 of 10 samples cannot be used" in message
    assert "train/section-0000/screenshot.png: a truncated" in message
    assert "train/section-0000/layout.json: Expecting" in message
    [(place, why)] = read(folder, on_bad_sample="skip", max_bad_fraction=0.1).skipped
    assert place == "train/section-0000/screenshot.png"
    assert "; train/section-0000/layout.json: Expecting" in why


def test_more_bad_samples_than_allowed_stop_even_skipping(folder):
    for number in (0, 1):
        (sample(folder, number=number) / "layout.json").write_text("{")
    message = refused(folder, on_bad_sample="skip", max_bad_fraction=0.1)
    assert "2 of 10 samples cannot be used: more than task.max_bad_fraction = 0.1 allows" in message
    assert len(read(folder, on_bad_sample="skip", max_bad_fraction=0.2).train) == 5


def test_names_that_would_repaint_the_terminal_are_printed_harmlessly(folder):
    path = folder / "train" / "bad\x1b[31mname"
    path.mkdir()
    assert "\x1b" not in refused(folder)


def test_a_link_inside_the_folder_is_followed(folder):
    path = sample(folder) / "screenshot.png"
    path.rename(folder / "shared.png")
    path.symlink_to(folder / "shared.png")
    assert len(read(folder).train) == 7


@pytest.mark.parametrize("text", ["", "row {", "row }", "{ row }", "row { Btn }", "row { a } { b }"])
def test_gui_texts_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r"character|without|empty"):
        parse_gui(text)


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"])
def test_every_kind_of_picture_becomes_rgb(mode):
    array = noise(shape=(20, 30))
    if mode == "I;16":
        picture = Image.fromarray(array.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(array).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    square, size, *_ = decode_image(buffer.getvalue(), Path("x.png"), 32)
    assert square.shape == (32, 32, 3)
    assert size == (30, 20)
    if mode in ("RGB", "L", "I;16"):
        exact, *_ = decode_image(png(np.stack([array] * 3, axis=-1)), Path("x.png"), 32)
        assert np.array_equal(square, exact)


def test_transparent_pixels_are_white():
    array = np.zeros((8, 8, 4), dtype=np.uint8)
    array[:4, :, 3] = 255
    square, *_ = decode_image(png(array), Path("x.png"), 8)
    assert square[0, 0].tolist() == [0, 0, 0]
    assert square[7, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_other_formats_are_read_by_content(form):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, form)
    picture = decode_image(buffer.getvalue(), Path("screenshot.png"), 16)
    assert picture.size == (30, 20)
    assert picture.remarks == (f"the file is a {form} picture whatever its name says; read as such",)
    assert decode_image(buffer.getvalue(), Path(f"screenshot.{form.lower()}"), 16).remarks == ()


def test_cmyk_becomes_rgb():
    colours = Image.new("RGB", (32, 16), (200, 40, 40))
    colours.paste((20, 90, 160), (16, 0, 32, 16))
    buffer = io.BytesIO()
    colours.convert("CMYK").save(buffer, "JPEG", quality=95)
    square = decode_image(buffer.getvalue(), Path("x.jpg"), 32).square
    assert np.abs(square[8, 4].astype(int) - (200, 40, 40)).max() < 12
    assert np.abs(square[8, 28].astype(int) - (20, 90, 160)).max() < 12


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(form):
    frames = [Image.fromarray(noise(seed)) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    picture = decode_image(buffer.getvalue(), Path(f"x.{form.lower()}"), 30)
    assert picture.remarks == ("an animation: its first frame was taken",)
    assert np.array_equal(picture.square[:20], noise(0))


def test_a_text_that_unpacks_without_end_is_refused():
    body = zlib.compress(b"a" * 70_000_000)
    chunk = b"zTXt" + b"Comment\0\0" + body
    whole = png(noise())
    bomb = whole[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]
    with pytest.raises(Fault, match="picture"):
        decode_image(bomb, Path("x.png"), 16)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_a_screenshot_of_another_format_is_found(folder, suffix):
    path = sample(folder) / "screenshot.png"
    with Image.open(path) as picture:
        picture.save(path.with_suffix(suffix), quality=95)
    path.unlink()
    splits = read(folder)
    assert len(splits.train) == 7
    assert splits.warnings == ()


def test_of_two_screenshots_the_second_is_remarked(folder):
    path = sample(folder) / "screenshot.png"
    with Image.open(path) as picture:
        picture.save(path.with_suffix(".jpg"))
    assert read(folder).warnings == (
        "train/section-0000/screenshot.jpg: not looked at: screenshot.png is the screenshot",
    )


def test_remarks_of_one_rule_are_summed_up(folder):
    for path in (folder / "train").iterdir():
        with Image.open(path / "screenshot.png") as picture:
            loaded = picture.convert("RGB")
        loaded.save(path / "screenshot.png", "WEBP", lossless=True)
    warnings = read(folder).warnings
    assert len(warnings) == 4
    assert warnings[0].startswith("train/section-0000/screenshot.png: the file is a WEBP picture")
    assert warnings[3].startswith("... and 4 more of 'picture': trainkit validate ")


def test_letterbox_keeps_the_aspect_ratio_and_fills_with_white():
    square = letterbox(Image.fromarray(np.zeros((10, 40, 3), dtype=np.uint8)), 20)
    assert square[:5].max() == 0
    assert square[5:].min() == 255
    array = noise(shape=(16, 16, 3))
    assert np.array_equal(letterbox(Image.fromarray(array), 16), array)


def test_a_picture_turned_by_its_camera_is_turned_back():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save(buffer, "JPEG", exif=exif)
    assert decode_image(buffer.getvalue(), Path("x.jpg"), 16).size == (20, 30)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    (tmp_path / "x").write_bytes(b"0" * 11)
    with pytest.raises(Fault, match="MiB are read"):
        files.read_bytes(tmp_path / "x", tmp_path)
