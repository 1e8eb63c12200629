"""Reading: every format, every fault, every record used or counted."""

from __future__ import annotations

import csv
import gzip
import io
import json

import numpy as np
import polars as pl
import pytest
from trainkit.errors import DataError
from trainkit.folds.fold import read_fold
from trainkit_task_seq2seq import records
from trainkit_task_seq2seq.markdown import record_of
from trainkit_task_seq2seq.pairs import Columns, Unusable
from trainkit_task_seq2seq.parts import divided
from trainkit_task_seq2seq.task import Seq2SeqTask

SKIP = {"on_bad_sample": "skip", "max_bad_fraction": 0.9}


def sums(count, first=0):
    """Return records of questions and answers, all different."""
    numbers = range(first, first + count)
    return [{"id": f"n{i}", "question": f"What is {i} + {i}?", "answer": f"It is {2 * i}."} for i in numbers]


def read(path, **options):
    return Seq2SeqTask(size="micro", **options).read(path, 0)


def texts_of(split):
    return [(each["input"], each["target"]) for each in split.__getitems__([*range(len(split))])]


def texts(splits):
    return sorted(pair for _, split in splits.items() for pair in texts_of(split))


def findings(path, **options):
    return Seq2SeqTask(size="micro", **options).inspect(path).findings


EXPECTED = sorted((row["question"], row["answer"]) for row in sums(30))


def test_every_format_gives_the_same_pairs(tmp_path, jsonl):
    rows = sums(30)
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    files = {
        "a.jsonl": jsonl(rows, "x.jsonl").read_bytes(),
        "a.jsonl.gz": gzip.compress(jsonl(rows, "x.jsonl").read_bytes()),
        "bom.jsonl": b"\xef\xbb\xbf" + jsonl(rows, "x.jsonl").read_bytes(),
        "a.json": json.dumps(rows).encode(),
        "data.json": json.dumps({"version": 1, "data": rows}).encode(),
        "a.csv": sheet.getvalue().encode(),
        "a.csv.gz": gzip.compress(sheet.getvalue().encode()),
        "a.tsv": sheet.getvalue().replace(",", "\t").encode(),
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in [*files, "a.parquet"]:
        splits = read(tmp_path / name)
        assert texts(splits) == EXPECTED, name
        assert not splits.skipped


def test_a_folder_with_a_file_for_each_record(tmp_path):
    for number, row in enumerate(sums(30)):
        (tmp_path / f"{number}.json").write_text(json.dumps(row))
    assert texts(read(tmp_path)) == EXPECTED


def test_parts_by_folders_and_by_names(tmp_path, jsonl):
    jsonl(sums(6), "folders/train/a.jsonl")
    jsonl(sums(2, 10), "folders/valid/a.jsonl")
    jsonl(sums(3, 20), "folders/test/a.jsonl")
    jsonl(sums(6), "names/train.jsonl")
    jsonl(sums(2, 10), "names/dev.jsonl")
    for folder in ("folders", "names"):
        counts = {name: len(split) for name, split in read(tmp_path / folder).items()}
        assert counts == {"train": 6, "val": 2} | ({"test": 3} if folder == "folders" else {})


def test_without_a_validation_part_some_of_training_serve(tmp_path, jsonl):
    jsonl(sums(40), "train/a.jsonl")
    jsonl(sums(3, 50), "test/a.jsonl")
    splits = read(tmp_path)
    counts = {name: len(split) for name, split in splits.items()}
    assert counts["train"] + counts["val"] == 40
    assert (0 < counts["val"] < 12, counts["test"]) == (True, 3)
    assert "10% of the training records serve as such" in splits.source


MARKDOWN = """---
title: "Boiled egg"
tags: [breakfast, quick]
author:
  - Ann
  - Bob
nested:
  deep: 1
---
# Egg

Boil it.
"""


def test_markdown_is_its_text_and_the_simple_keys_of_its_head(tmp_path):
    found = record_of(MARKDOWN, "egg.md")
    assert found == {
        "title": "Boiled egg",
        "tags": ["breakfast", "quick"],
        "author": ["Ann", "Bob"],
        "text": MARKDOWN,
        "path": "egg.md",
    }
    assert record_of("# Soup\nCook.", "s.md")["title"] == "Soup"
    assert record_of("---\ntitle: open head\n", "s.md")["text"].startswith("---")
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.md").write_text(MARKDOWN.replace("egg", f"{name} eggs").replace("it.", f"{name}."))
    (tmp_path / "README.md").write_text("# About\nNothing to learn.")
    splits = read(tmp_path)
    assert [source for source, _ in texts(splits)] == ["Boiled one eggs", "Boiled three eggs", "Boiled two eggs"]
    assert any("README.md" in warning for warning in splits.warnings)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"{broken\n", "broken line"),
        (b'{"question": "caf\xe9?", "answer": "yes"}\n', "encoding"),
        (b'{"question": "\\ud800", "answer": "half a letter"}\n', "encoding"),
        (b'{"question": "", "answer": "empty"}\n', "empty input"),
        (b'{"question": "q", "answer": " \\n"}\n', "empty target"),
        (b'{"question": "q"}\n', "no target"),
        (b'{"question": "q", "answer": {"a": 1}}\n', "target is no text"),
        (b"[1, 2]\n", "no record"),
        (b"[" * 100_000 + b"\n", "broken line"),
        (b'{"question": "' + b"x" * (17 << 20) + b'", "answer": "y"}\n', "long line"),
    ],
)
def test_what_cannot_be_used_is_counted_with_its_reason(jsonl, line, rule):
    path = jsonl(sums(20), after=line + json.dumps(sums(1, 99)[0]).encode())
    found = [finding for finding in findings(path) if finding.is_fault]
    assert [(finding.rule, finding.place) for finding in found] == [(rule, "pairs.jsonl:21")]
    with pytest.raises(DataError, match="1 of 22 records cannot be used") as error:
        read(path)
    assert "pairs.jsonl:21" in str(error.value)
    splits = read(path, **SKIP)
    assert len(texts(splits)) == 21
    assert [place for place, _ in splits.skipped] == ["pairs.jsonl:21"]


def test_a_long_line_is_passed_over_in_bounded_memory(jsonl, monkeypatch):
    monkeypatch.setattr(records, "LONGEST_LINE", 1000)
    path = jsonl(sums(3), after=b'{"question": "' + b"x" * 10_000_000 + b'"}\n' + b'{"question": "q", "answer": "a"}')
    found = list(records.records(path, "f"))
    assert [each.place for each in found] == ["f:1", "f:2", "f:3", "f:4", "f:5"]
    assert [each.rule for each in found if each.content is None] == ["long line"]


def test_skipping_has_a_limit(jsonl):
    path = jsonl(sums(20), after=b"{\n{\n{\n")
    with pytest.raises(DataError, match=r"more than task\.max_bad_fraction = 0\.01 allows"):
        read(path, on_bad_sample="skip")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", "{}".encode("utf-16"), "not written in UTF-8"),
        ("a.json", b"{", "no JSON"),
        ("a.json", b"3", "no records"),
        ("a.parquet", b"PAR1 no", "cannot be read"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"input": "a", "target": "b"}\n' * 9000, mtime=0)[:60], "cannot be read"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"a,a\n1,2\n", "two columns are named 'a'"),
        ("a.bin", b"x", "has no records"),
        ("a.jsonl", b"", "no record to learn from"),
        ("a.jsonl", b'{"x": 1, "y": 2}\n', "no column is known to be the input"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match):
        read(tmp_path / name)


def test_a_folder_without_records_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="the folder has no records"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nowhere")


def test_rows_of_csv_with_too_many_cells_and_bytes_are_told(tmp_path):
    lines = [
        b"question,answer",
        *(f"q{i},a{i}".encode() for i in range(20)),
        b"q,a,more",
        b"caf\xe9,a",
        b'"two\nlines",a',
    ]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    assert [(f.rule, f.place) for f in findings(tmp_path / "a.csv") if f.is_fault] == [
        ("broken line", "a.csv:22"),
        ("encoding", "a.csv:23"),
    ]
    assert ("two\nlines", "a") in texts(read(tmp_path / "a.csv", **SKIP))


class TestDuplicates:
    def test_within_a_part_they_are_told_and_used(self, jsonl):
        path = jsonl([*sums(30), sums(1)[0]])
        found = {finding.rule: finding for finding in findings(path)}
        assert not any(finding.is_fault for finding in found.values())
        assert set(found) == {"duplicate", "duplicate id"}
        splits = read(path)
        assert len(texts(splits)) == 31
        names = [name for _, split in splits.items() for name in split.ids]
        assert len(set(names)) == 31
        assert "n0#2" in names

    def test_in_two_parts_the_later_one_is_a_fault(self, tmp_path, jsonl):
        jsonl(sums(10), "train/a.jsonl")
        jsonl([*sums(1), *sums(3, 20)], "val/a.jsonl")
        with pytest.raises(DataError, match=r"a copy of train/a\.jsonl:1"):
            read(tmp_path)
        splits = read(tmp_path, **SKIP)
        assert (len(splits.train), len(splits.val)) == (10, 3)

    def test_near_duplicates_stay_together(self, jsonl):
        rows = [
            {"input": f"text {i} {form}", "target": form.format(i)}
            for i in range(60)
            for form in ("It is  {}!", "it is {}", "IT  IS {}.")
        ]
        splits = read(jsonl(rows), val_share=0.3)
        train, val = ({int(group) for group in split.groups} for split in (splits.train, splits.val))
        assert len(train) + len(val) == 60
        assert not train & val


def test_parts_follow_from_the_target_alone():
    groups = np.random.default_rng(0).integers(-(1 << 63), 1 << 63, 20_000)
    parts = divided(groups, 0.1, 0.2)
    shares = np.bincount(parts) / len(parts)
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    # More data moves nothing.
    assert np.array_equal(divided(groups[:5000], 0.1, 0.2), parts[:5000])


def test_few_samples_still_have_something_to_validate_on():
    groups = np.array([1 << 61, 3 << 60, 1 << 62, -3])
    assert sorted(np.bincount(divided(groups, 0.01, 0.0), minlength=2).tolist()) == [1, 3]
    assert divided(np.array([7, 7, 7]), 0.1, 0.0).tolist() == [0, 0, 0]


class TestColumns:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (("prompt", "completion"), ("prompt", "completion")),
            (("text", "summary"), ("text", "summary")),
            (("title", "text"), ("title", "text")),
            (("de", "en"), ("de", "en")),
            (("ID", "Question", "Answer"), ("Question", "Answer")),
        ],
    )
    def test_are_found_by_name_or_are_the_only_two(self, names, expected):
        schema = Columns()
        schema.look([dict.fromkeys(names, "words")])
        assert (schema.input, schema.target) == expected

    def test_that_are_named_go_first(self):
        schema = Columns(target="title")
        assert schema.look([{"text": "a", "title": "b", "summary": "c"}]).endswith("'title'")
        assert schema.input == "text"
        with pytest.raises(DataError, match=r"task\.input = 'nothing' is no column"):
            Columns(input="nothing").look([{"text": "a", "target": "b"}])

    def test_lists_are_lines_and_numbers_are_words(self):
        schema = Columns("x", "y")
        pair = schema.pair({"x": ["a", "b"], "y": 3, "id": 7, "quality_score": "0.5", "difficulty": 2})
        assert (pair.input, pair.target, pair.id, pair.quality, pair.difficulty) == ("a\nb", "3", "7", 0.5, 2.0)
        with pytest.raises(Unusable):
            schema.pair({"x": "a", "y": True})

    def test_a_quality_that_some_lack_is_the_mean_there(self, jsonl):
        rows = [{**row, "quality": 0.4 if i else 0.8} for i, row in enumerate(sums(20))]
        del rows[5]["quality"]
        splits = read(jsonl(rows))
        known = [q for _, split in splits.items() for q in split.quality.tolist()]
        assert sorted(known)[-2] == pytest.approx((0.8 + 18 * 0.4) / 19)
        assert any("without a quality" in warning for warning in splits.warnings)
        assert read(jsonl(sums(20))).train.quality is None


def test_texts_are_longer_the_more_difficult(jsonl):
    splits = read(jsonl(sums(200)))
    lengths = [len(a) + len(b) for a, b in texts_of(splits.train)]
    assert splits.train.difficulty.tolist() == lengths


def test_the_fingerprint_follows_from_the_content(jsonl):
    first = read(jsonl(sums(20), "a.jsonl")).fingerprint
    assert read(jsonl(sums(20), "b.jsonl")).fingerprint == first
    assert read(jsonl(sums(21), "c.jsonl")).fingerprint != first


class TestInputs:
    @pytest.fixture
    def task(self, jsonl):
        task = Seq2SeqTask(size="micro", vocab_size=300, max_input=16, **SKIP)
        task.fit(task.read(jsonl(sums(20)), 0).train)
        return task

    def asked(self, dataset):
        return [(s["id"], s["input"], s["target"]) for s in dataset.__getitems__(list(range(len(dataset))))]

    def test_lines_of_a_text_and_records_without_a_target(self, task, tmp_path, jsonl):
        (tmp_path / "q.txt").write_text("\ufeffWhat is 5?\n\nWhat is 6?\n")
        records = jsonl([{"question": "What is 7?"}, {"prompt": "What is 8?"}, {"nothing": 1}], "r.jsonl")
        found = task.inputs([tmp_path / "q.txt", records])
        assert self.asked(found) == [
            ("q-1", "What is 5?", None),
            ("q-3", "What is 6?", None),
            ("r.jsonl:1", "What is 7?", None),
            ("r.jsonl:2", "What is 8?", None),
        ]
        assert any("r.jsonl:3" in warning for warning in found.warnings)

    def test_names_that_come_twice_and_inputs_that_are_cut(self, task, jsonl):
        found = task.inputs([jsonl([{"id": "a", "question": "long " * 50}, {"id": "a", "question": "b"}])])
        assert [name for name, _, _ in self.asked(found)] == ["a", "a#2"]
        assert any("1 of 2 inputs are longer than 16 tokens" in warning for warning in found.warnings)
        labels = task.collate(found.__getitems__([0, 1]))["labels"]
        assert (labels == -100).all()

    @pytest.mark.parametrize(("name", "content"), [("a.txt", b"\xff\xfe"), ("a.txt", b"\n"), ("a.exe", b"x")])
    def test_what_cannot_be_answered_is_refused(self, task, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            task.inputs([tmp_path / name])

    def test_an_empty_prompt_is_refused(self, task):
        with pytest.raises(DataError, match="the prompt is empty"):
            task.prompts(["a", " "])

    def test_whole_data_is_one_split(self, task, jsonl):
        found = task.whole(jsonl(sums(12, 100), "other.jsonl"))
        assert len(found) == 12
        batch = task.collate(found.__getitems__([3]))
        assert task.tokens.decode(batch["labels"].tolist()) == ["It is 206."]


def test_folds_keep_near_duplicates_together_and_know_lengths(jsonl):
    rows = [
        {"input": f"q {i} {form}", "target": form.format(i)} for i in range(20) for form in ("It is {}", "it is {}!")
    ]
    task = Seq2SeqTask(size="micro", vocab_size=300)
    splits = read_fold(task.read(jsonl(rows), 0), "1/4", task, 0)
    task.fit(splits.train)
    groups = [{int(group) for group in split.groups} for split in (splits.train, splits.val)]
    assert (len(groups[0] & groups[1]), len(groups[0] | groups[1]), len(splits.val)) == (0, 20, 10)
    assert len(splits.train.lengths) == len(splits.train) == 30
    (sample,) = splits.train.drawn([4], [1])
    assert sample["encoded"].input == sample["input"]
