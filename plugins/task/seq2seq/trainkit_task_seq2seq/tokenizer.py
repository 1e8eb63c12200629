"""Tokenizers: one that is trained on texts, one from a folder, and either as small files that a state can hold."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash

from .cache import Cache

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SPECIAL = (PAD, EOS, UNK)
PROBE = "a"
CONFIG = "tokenizer_config.json"
TEXT_FILES = (".json", ".txt", ".jinja")
# What transformers notes of the way in which it loaded a tokenizer, and nothing of what it does.
OF_LOADING = frozenset({"is_local", "local_files_only", "name_or_path"})


class Tokens:
    """Turn texts into token ids and back, with what a model wants around them.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        bare = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        whole = tokenizer(PROBE)["input_ids"]
        begin = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        self.before, self.after = tuple(whole[:begin]), tuple(whole[begin + len(bare) :])

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, bare, all at once and in parallel."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            return found
        return [each.ids for each in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_one(self, text: str) -> list[int]:
        """Return the token ids of a text, bare; nothing starts threads, so a process of its own may call it."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return self.encode([text])[0]
        found: list[int] = backend.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """Return the texts of token ids, without special tokens."""
        return [self.tokenizer.decode(list(row), skip_special_tokens=True) for row in rows]

    @cached_property
    def keeps_lines(self) -> bool:
        """Return whether a line break comes back, which tokenizers of some models, as T5's, take for a blank."""
        return "\n" in self.decode(self.encode([f"{PROBE}\n{PROBE}"]))[0]

    @cached_property
    def files(self) -> dict[str, str]:
        """Return the files that hold the tokenizer, by name, as transformers reads them."""
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix in TEXT_FILES]
            found = {path.name: path.read_text(encoding="utf-8") for path in paths}
        if CONFIG in found:
            config = {name: value for name, value in json.loads(found[CONFIG]).items() if name not in OF_LOADING}
            found[CONFIG] = json.dumps(config, indent=2, sort_keys=True) + "\n"
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of all that it makes of texts."""
        return xxhash.xxh3_128_hexdigest("\0".join(f"{name}\0{text}" for name, text in self.files.items()).encode())

    @classmethod
    def of_files(cls, files: Mapping[str, str]) -> Tokens:
        """Return the tokenizer that files hold."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
            return cls(_loaded(folder))


def _loaded(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def trained(texts: Iterable[str], vocab_size: int) -> Tokens:
    """Return a tokenizer of byte pairs, trained on texts: any text can be written with it, none is unknown.

    Args:
        texts: of the training split alone.
        vocab_size: most tokens: 3 special ones, 256 bytes, and merges.

    Source: Sennrich et al. 2016, arXiv 1508.07909 [paper]; on bytes, as GPT-2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    wrapped: Any = PreTrainedTokenizerFast
    return Tokens(wrapped(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK))


def with_lines(tokens: Tokens) -> Tokens:
    """Return a tokenizer with a token for the line break on top, which the model has to learn."""
    from tokenizers import AddedToken

    tokens.tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    return Tokens(tokens.tokenizer)


def fingerprint_of(texts: Iterable[str]) -> str:
    """Return a hash of texts."""
    content = xxhash.xxh3_128()
    for text in texts:
        data = text.encode()
        content.update(len(data).to_bytes(8, "little"))
        content.update(data)
    return content.hexdigest()


def trained_once(texts: Callable[[], Iterable[str]], vocab_size: int, cache: Cache | None) -> Tokens:
    """Return a trained tokenizer, from a cache if it was trained on these texts before.

    Args:
        texts: gives them, as often as it is asked.
        vocab_size: most tokens.
        cache: where it is kept; None: nowhere.
    """
    if cache is None:
        return trained(texts(), vocab_size)
    import tokenizers

    def make(folder: Path) -> None:
        for name, text in trained(texts(), vocab_size).files.items():
            (folder / name).write_text(text, encoding="utf-8")

    facts = f"{fingerprint_of(texts())} {vocab_size} {tokenizers.__version__}"
    folder = cache.folder("tokenizer-" + xxhash.xxh3_128_hexdigest(facts.encode()), make)
    return trained(texts(), vocab_size) if folder is None else Tokens(_loaded(str(folder)))
