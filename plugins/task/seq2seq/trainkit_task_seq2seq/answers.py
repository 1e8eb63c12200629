"""Answers: what was written, as a text and as JSON, beside the input and, where it is known, the target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trainkit.contracts import Answer, Panel, Sample


def answer_of(sample: Sample, text: str) -> Answer:
    """Return the answer to a sample."""
    data: dict[str, Any] = {"id": sample["id"], "input": sample["input"], "output": text}
    panels = [Panel("input", sample["input"])]
    if sample["target"] is not None:
        data["target"] = sample["target"]
        panels.append(Panel("target", sample["target"]))
    files = {".txt": text + "\n", ".json": json.dumps(data, indent=1, ensure_ascii=False) + "\n"}
    return Answer(sample["id"], files, data, [*panels, Panel("output", text)], text)


def answers_of(samples: Sequence[Sample], texts: Sequence[str]) -> list[Answer]:
    """Return the answers to samples."""
    return [answer_of(sample, text) for sample, text in zip(samples, texts, strict=True)]
