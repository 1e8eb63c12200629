"""`trainkit show` as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trainkit
from PIL import Image
from trainkit.data import BatchMaker, draw
from trainkit.draft import make_draft
from trainkit.showing import sample_rows, variant_draws
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit.testing.tinyfiles import write_sequences

TASK = ("--task", f"{tiny.__file__}:TinyTask")
SHIFT = """
class Shift:
    reads = frozenset({"tokens"})
    def __call__(self, sample, generator):
        return {**sample, "tokens": (sample["tokens"] + generator.integers(0, 5, len(sample["tokens"]))) % 13}

class Blind:
    \"\"\"A task without pictures.\"\"\"
    def __init__(self):
        from trainkit.testing.tiny import TinyTask
        self.task = TinyTask()
    def __getattr__(self, name):
        if name == "picture":
            raise AttributeError(name)
        return getattr(self.task, name)
"""


class Shift:
    """Shift tokens by random amounts."""

    reads = frozenset({"tokens"})

    def __call__(self, sample, generator):
        return {**sample, "tokens": (sample["tokens"] + generator.integers(0, 5, len(sample["tokens"]))) % 13}


def test_samples_as_they_are(cli):
    data = write_sequences(Path("pages"))
    done = cli("show", data, *TASK, "--samples", 3)
    assert (done.code, done.out) == (0, "contact-sheet.png: 3 samples\n"), done.err
    with Image.open("contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert (sheet.mode, sheet.width < 400) == ("RGB", True)
    assert cli("show", data, *TASK).out == "contact-sheet-2.png: 6 samples\n"


def test_variants_are_those_of_the_run(cli):
    Path("mine.py").write_text(SHIFT)
    arguments = (*TASK, "--samples", 2, "--variants", 3)
    done = cli("show", *arguments, "--augmenter", "./mine.py:Shift", "--out", "made/a.png")
    assert (done.code, done.out) == (0, "made/a.png: 2 samples, 3 variants each by ./mine.py:Shift\n"), done.err
    Path("run.toml").write_text('augmenter = ["./mine.py:Shift"]\nseed = 1\n')
    assert cli("show", *arguments, "--config", "run.toml", "--augment", "--out", "b.png").code == 0
    assert cli("show", *arguments, "--config", "run.toml", "--augment", "--out", "c.png", "--seed", 0).code == 0
    a, b, c = (np.asarray(Image.open(name)) for name in ("made/a.png", "b.png", "c.png"))
    assert np.array_equal(a, c)
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("variants", [1, 3])
def test_a_variant_on_the_sheet_is_the_one_that_the_run_trains_on(variants):
    task, seed = TinyTask(), 5
    data = task.read(None, 0).train
    draws = [pair for pair, _ in zip(variant_draws(variants), range(4), strict=False)]
    names, rows = sample_rows(task, data, [Shift()], seed, [7], draws)
    assert names == [data.ids[7]]
    maker = BatchMaker(data, task.collate, [Shift()], seed)
    seen = []
    for epoch in range(6):
        drawn = draw(range(len(data)), variants, seed, epoch)
        for sample, variant in sorted(zip(drawn.samples.tolist(), drawn.variants.tolist(), strict=True)):
            if sample == 7 and variant > 0:
                batch = maker(epoch, drawn.samples.new_tensor([sample]), drawn.variants.new_tensor([variant]))
                seen.append((epoch, variant, task.picture({"tokens": batch["tokens"][0].numpy()})))
    (title, panels), expected = rows[0], seen[:4]
    assert title == data.ids[7]
    assert [panel.title for panel in panels] == [
        "as it is", *(f"epoch {epoch + 1}, variant {variant}" for epoch, variant, _ in expected)
    ]  # fmt: skip
    assert all(np.array_equal(panel.content, seen) for panel, (_, _, seen) in zip(panels[1:], expected, strict=True))
    assert np.array_equal(panels[0].content, task.picture({"tokens": data.sequences[7]}))
    assert not np.array_equal(panels[0].content, panels[1].content)


def test_a_variant_that_looks_the_same_is_titled_so():
    task = TinyTask()
    _, rows = sample_rows(task, task.read(None, 0).train, [lambda sample, generator: dict(sample)], 0, [1], [(2, 3)])
    assert [panel.title for panel in rows[0][1]] == ["as it is", "epoch 3, variant 3, looks the same"]


def test_what_is_wrong_with_the_request_is_told(cli):
    Path("mine.py").write_text(SHIFT)
    for arguments, code, text in [
        ((*TASK, "--augment"), 2, "no augmenter is in force"),
        (("--task", "./mine.py:Blind"), 2, "task Blind cannot show its samples\n  why:   it lacks picture"),
        ((*TASK, "--samples", "0"), 2, "--samples"),
        ((*TASK, "--out", "mine.py/x.png"), 7, "a file cannot be written"),
        ((*TASK, "--out", "."), 2, "a folder\n  where: .\n  do:    name a file, as --out contact-sheet.png"),
        (("nowhere", *TASK), 5, "a file cannot be read"),
    ]:
        done = cli("show", *arguments)
        assert (done.code, done.out) == (code, ""), done
        assert text in done.err
    assert not Path("contact-sheet.png").exists()


def test_the_sheet_is_opened_or_its_place_told(cli, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = cli("show", *TASK, "--samples", 1, "--open")
    assert done.err == f"open it in a browser: {Path('contact-sheet.png').resolve()}\n"


def test_python_gets_the_picture(tmp_path):
    sheet = trainkit.show(task=TinyTask(), augmenter=Shift(), samples=2, variants=1, settings={"seed": 3})
    assert sheet.samples == ("1-0", "1-12")
    assert sheet.picture.shape[2] == 3
    assert sheet.picture.dtype == np.uint8
    assert np.array_equal(np.asarray(Image.open(sheet.save(tmp_path / "a.png"))), sheet.picture)
    with pytest.raises(trainkit.UsageError, match="cannot be shown"):
        trainkit.show(task=TinyTask(), samples=0)


def test_looking_at_samples_changes_no_run():
    request = tiny_request({"seed": 3})
    before = make_draft(request.layers, request.registry, request.live).fresh_model().state_dict()
    trainkit.show(task=TinyTask(), samples=2, settings={"seed": 3})
    after = make_draft(request.layers, request.registry, request.live).fresh_model().state_dict()
    assert all(before[name].equal(after[name]) for name in before)
