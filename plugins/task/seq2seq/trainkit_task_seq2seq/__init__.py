"""Offer the task 'seq2seq' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_task() -> Any:
    from .task import Seq2SeqTask

    return Seq2SeqTask
