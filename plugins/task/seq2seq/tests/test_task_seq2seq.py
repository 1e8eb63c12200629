"""The task on its embedded sample: what it promises."""

from __future__ import annotations

import json

from trainkit.testing import TaskConformance


class TestSeq2SeqConformance(TaskConformance):
    component = "seq2seq"
    options = {"size": "micro", "max_new_tokens": 12, "dropout": 0.0}
    # Data, model and generation are set here; flat names spare the user a level of nesting.
    most_options = 32

    def written(self, folder):
        folder.mkdir()
        rows = [{"id": f"n{i}", "question": f"What is {i} + {i}?", "answer": f"It is {2 * i}."} for i in range(40)]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return folder

    def input_paths(self, data):
        return [data / "pairs.jsonl"]
