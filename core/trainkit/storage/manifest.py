"""The manifest of a checkpoint: what it holds, each file with its size and hash, and the hash of all that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from trainkit.errors import CheckpointError, RunFailed, printable

from . import strict_json
from .filesystem import read_file
from .statetree import flatten, unflatten

FORMAT = 1
NAME = "manifest.json"
MAX_BYTES = 4 * 2**20
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Manifest:
    """Hold what a checkpoint says of itself.

    Args:
        step: the optimizer step.
        files: file name -> (size in bytes, xxh3_128 as hexadecimal digits).
        facts: plain values: epoch, offset of the metrics, hashes and versions.
    """

    step: int
    files: Mapping[str, tuple[int, str]]
    facts: Mapping[str, Any]

    def render(self) -> bytes:
        """Return the text of manifest.json.

        Raises:
            RunFailed: the facts are not plain values, or too many.
        """
        facts, tensors = flatten(dict(self.facts), "facts")
        if tensors:
            raise RunFailed("a checkpoint's facts are plain values, not tensors", where=", ".join(tensors))
        text = _render(
            {
                "format": FORMAT,
                "step": self.step,
                "files": {name: {"size": size, "xxh3_128": digest} for name, (size, digest) in self.files.items()},
                "facts": facts,
            }
        )
        if len(text) > MAX_BYTES:
            raise RunFailed("a checkpoint's facts are too large", why=f"its manifest would have {len(text):,} bytes")
        return text

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Return the manifest in a folder.

        Raises:
            CheckpointError: it is missing, damaged, of another format, or names what is not a plain file.
        """
        content = read_file(folder / NAME, MAX_BYTES)
        try:
            return _parse(content)
        except CheckpointError as error:
            raise CheckpointError("a checkpoint cannot be used", where=str(folder / NAME), why=error.why) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = printable(str(error)) if isinstance(error, ValueError) else "it is not of the form of a manifest"
            raise CheckpointError("a checkpoint cannot be used", where=str(folder / NAME), why=why) from error


def is_file_name(name: str) -> bool:
    """Return whether this can be the name of a checkpoint's file."""
    return bool(_FILE.fullmatch(name)) and name != NAME


def _render(content: Mapping[str, Any]) -> bytes:
    digest = xxhash.xxh3_128_hexdigest(strict_json.dumps(content))
    return strict_json.dumps({"xxh3_128": digest, "content": content}, indent=1)


def _parse(content: bytes) -> Manifest:
    body = strict_json.loads(content)["content"]
    # The text is a function of the content, so that no changed bit goes unseen.
    if _render(body) != content:
        raise ValueError("its content is not what was written")
    if body["format"] != FORMAT:
        raise ValueError(f"its format is {body['format']!r}; this version of trainkit reads {FORMAT}")
    step, facts = body["step"], unflatten(body["facts"], {})
    if type(step) is not int or step < 0 or not isinstance(facts, dict):
        raise ValueError("it has no step or no facts")
    files = {name: (entry["size"], entry["xxh3_128"]) for name, entry in body["files"].items()}
    for name, (size, digest) in files.items():
        if not is_file_name(name):
            raise ValueError(f"{name!r} is not a plain file name")
        if type(size) is not int or size < 0 or not isinstance(digest, str):
            raise ValueError(f"the entry of {name} is not a size and a hash")
    return Manifest(step, files, facts)
