"""Data that cannot be used ends in one clear message and exit code 5, before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

TRAIN, VAL = "train", "val"


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of generated samples: six to learn from, two to validate on, one to test on."""
    from trainkit_task_layout.sections import write_sections

    folder = tmp_path_factory.mktemp("sections")
    write_sections(folder)
    for part, kept in ((TRAIN, 6), (VAL, 2), ("test", 1)):
        for extra in sorted((folder / part).iterdir())[kept:]:
            shutil.rmtree(extra)
    return folder


@pytest.fixture
def data(cli: object, sections: Path) -> Path:
    """Return a copy of the samples in the test's own folder."""
    shutil.copytree(sections, "pages")
    return Path("pages")


def samples(data: Path, part: str = TRAIN) -> list[Path]:
    """Return the sample folders of a part."""
    return sorted((data / part).iterdir())


def refused(done, *texts: str, code: int = 5) -> None:
    """Check that a command was refused with one message that says what, where or why, and what to do."""
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("error: ") == 1
    assert "\n  do:" in done.err
    for text in texts:
        assert text in done.err, done.err
    assert not Path("runs").exists()


def planned(cli, data: Path, *arguments: str) -> str:
    """Return the plan of a run on the data, its lines joined: it reads and checks everything, and trains nothing."""
    done = cli("plan", "--data", data, "--no-cost", *arguments)
    assert done.code == 0, done.err
    return " ".join(str(done.out).split())


def test_good_data_is_planned(cli, data):
    assert "6 train, 2 val, 1 test" in planned(cli, data)


def test_a_folder_that_is_not_there(cli):
    refused(cli("run", "--data", "pagse"), "the data folder does not exist", "where: pagse")


def test_a_file_in_place_of_a_folder(cli):
    Path("pages").write_text("")
    refused(cli("run", "--data", "pages"), "the data is not a folder")


def test_an_empty_folder(cli):
    Path("pages").mkdir()
    refused(cli("run", "--data", "pages"), "no samples were found", "screenshot.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user to whom permissions apply; this one is root")
def test_a_folder_that_may_not_be_read(cli, data):
    (data / TRAIN).chmod(0)
    try:
        refused(cli("run", "--data", data), "cannot be read")
    finally:
        (data / TRAIN).chmod(0o700)


def test_a_folder_that_the_system_refuses_to_list(cli, data, monkeypatch):
    real = Path.iterdir

    def refuse(path: Path):
        if path.name == TRAIN:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    refused(cli("run", "--data", data, "--set", "seed=1"), "a folder cannot be read", "permission denied")


def test_one_sample(cli, data):
    for extra in [*samples(data)[1:], *samples(data, VAL), *samples(data, "test")]:
        shutil.rmtree(extra)
    refused(cli("run", "--data", data), "at least one to learn from and one in val/")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blank(path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(path)


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut picture": ("screenshot.png", cut, "picture"),
    "empty picture": ("screenshot.png", lambda path: path.write_bytes(b""), "picture"),
    "no picture": ("screenshot.png", Path.unlink, "missing"),
    "blank picture": ("screenshot.png", blank, "blank"),
    "cut layout": ("layout.json", cut, "layout.json: "),
    "list for a layout": ("layout.json", lambda path: path.write_text("[]"), "layout.json: "),
    "deep layout": ("layout.json", lambda path: path.write_text("[" * 100_000), "layout.json: "),
    "no text": ("structure.json", lambda path: path.write_bytes(b"\xff\xfe\xff"), "not UTF-8"),
    "no structure": ("structure.json", Path.unlink, "missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_sample_stops_the_run_and_is_left_out_on_request(cli, data, fault):
    name, damage, reason = FAULTS[fault]
    bad = samples(data)[2]
    damage(bad / name)
    where = f"{bad.relative_to(data)}/{name}"
    refused(cli("run", "--data", data), "1 of 9 samples cannot be used", where, reason, "task.on_bad_sample=skip")
    skip = ("--set", "task.on_bad_sample=skip")
    refused(
        cli("run", "--data", data, *skip),
        "more than task.max_bad_fraction = 0.01 allows",
        "task.max_bad_fraction=0.111",
    )
    out = planned(cli, data, *skip, "--set", "task.max_bad_fraction=0.2")
    assert "5 train, 2 val, 1 test" in out
    assert "1 of 9 samples cannot be used and were left out:" in out
    assert where in out


def test_all_bad_samples_are_counted_and_the_first_twenty_listed(cli, data):
    for number in range(30):
        shutil.copytree(samples(data)[0], data / TRAIN / f"z{number:02}")
        (data / TRAIN / f"z{number:02}" / "layout.json").write_text("{")
    done = cli("run", "--data", data)
    refused(done, "30 of 39 samples cannot be used", "... and 10 more")
    assert done.err.count("layout.json") == 20


def test_swapped_files_are_read_as_meant_and_noted(cli, data):
    sample = samples(data)[0]
    (sample / "layout.json").rename(sample / "x")
    (sample / "structure.json").rename(sample / "layout.json")
    (sample / "x").rename(sample / "structure.json")
    out = planned(cli, data)
    assert f"{sample.relative_to(data)}: structure.json and layout.json were swapped; read as meant" in out
    assert "6 train" in out


@pytest.mark.parametrize("part", [VAL, "test"])
def test_copies_of_training_samples_in_other_parts(cli, data, part):
    shutil.copytree(samples(data)[1], data / part / "copy")
    refused(
        cli("run", "--data", data),
        "1 of 10 samples cannot be used",
        f"{part}/copy: a copy of train sample train/{samples(data)[1].name}, byte for byte",
    )
    skip = ("--set", "task.on_bad_sample=skip", "--set", "task.max_bad_fraction=0.1")
    assert "6 train, 2 val, 1 test" in planned(cli, data, *skip)


def test_two_formats_at_once(cli, data, repository):
    shutil.copytree(repository / "tests" / "data" / "pix2code-web", data, dirs_exist_ok=True)
    message = "the data has 2 formats at once: folders and pix2code"
    refused(cli("run", "--data", data), message, "--set task.format=folders")
    assert "6 train, 2 val, 1 test" in planned(cli, data, "--set", "task.format=folders")
    assert "16 train, 4 val, 4 test" in planned(cli, data, "--set", "task.format=pix2code")


def test_a_base_that_there_is_not(cli, data):
    layout = samples(data)[1] / "layout.json"
    layout.write_text(layout.read_text().replace("section@", "sektion@"))
    refused(cli("run", "--data", data), f"{layout.relative_to(data)}: 'sektion' in ", "did you mean 'section'?")


def test_a_manifest_that_cannot_be_read(cli):
    Path("pages").mkdir()
    Path("pages/dataset_config.yaml").write_text("splits: {train: [a, a]}")
    refused(cli("run", "--data", "pages"), "the manifest cannot be read", "'a' is listed in train and in train")


def test_a_link_out_of_the_folder_is_not_followed(cli, data, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    target = samples(data)[0] / "layout.json"
    target.unlink()
    target.symlink_to(secret)
    refused(cli("run", "--data", data), "a link that leads out of the data folder")


def test_a_pipe_in_place_of_a_file_does_not_hang(cli, data):
    target = samples(data)[0] / "layout.json"
    target.unlink()
    os.mkfifo(target)
    refused(cli("run", "--data", data), "not a regular file")


def test_a_run_on_data_with_skipped_samples_trains_and_says_so(cli, data):
    cut(samples(data)[0] / "screenshot.png")
    done = cli("run", "--data", data, "--max-steps", 1, "--set", "task.on_bad_sample=skip", "--set",
               "task.max_bad_fraction=0.5", "--set", "evaluate.final=false", "--out", "mine")  # fmt: skip
    assert done.code == 0, done.err
    assert "warning: 1 of 9 samples cannot be used and were left out:" in done.err
    plan = json.loads(Path("mine/plan.json").read_text())
    assert plan["data"]["samples"] == {"train": 5, "val": 2, "test": 1}
    assert any("samples cannot be used" in warning for warning in plan["data"]["warnings"])
    # The data changes under a run that is not done: it is refused before anything is trained.
    Path("mine/status.json").write_text('{"state": "stopped"}')
    shutil.rmtree(samples(data)[1])
    changed = cli("run", "--resume", "mine")
    assert changed.code == 6
    assert "the data is not what the run was trained on" in changed.err
    shutil.rmtree(data)
    assert cli("run", "--resume", "mine").code == 5
    assert cli("evaluate", "mine").code == 5
