"""Models and tokenizers of transformers: from a folder, from the hub when that is asked for, or built from a size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trainkit.errors import UsageError, printable

from .cache import Cache
from .sizes import Size, config_of
from .tokenizer import Tokens, trained_once, with_lines

CONFIG = "config.json"
DROPOUT = 0.1
DROPOUTS = ("dropout_rate", "dropout")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def check_folder(name: str) -> None:
    """Raise UsageError for a folder that holds no model of transformers."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").exists() and not (folder / CONFIG).exists():
        raise _refused(name, "it holds an adapter, not a whole model", "name the model that it belongs to")
    if not (folder / CONFIG).exists():
        raise _refused(name, f"it has no {CONFIG}", "name a folder that save_pretrained wrote, or leave task.model out")
    if not any((folder / weights).exists() for weights in WEIGHTS):
        has_pickle = (folder / "pytorch_model.bin").exists()
        why = f"it has no {WEIGHTS[0]}" + (
            ", only pytorch_model.bin, a pickle, which may run code" if has_pickle else ""
        )
        raise _refused(name, why, "save it anew by model.save_pretrained(FOLDER)")


def load_config(name: str, download: bool) -> Any:
    """Return the configuration of a model; raise UsageError where it is none of this kind."""
    from transformers import AutoConfig

    check_folder(name)
    config = _loaded(AutoConfig, name, download)
    if not config.is_encoder_decoder:
        why = f"a {config.model_type} has no encoder and decoder"
        raise _refused(name, why, "name a sequence-to-sequence model, as T5 or BART")
    return config


def load_tokens(name: str, download: bool) -> Tokens:
    """Return the tokenizer of a model; raise UsageError where it has none."""
    from transformers import AutoTokenizer

    return Tokens(_loaded(AutoTokenizer, name, download))


def load_model(name: str, config: Any, download: bool) -> nn.Module:
    """Return a model with the weights of a folder or of the hub, in float32."""
    from transformers import AutoModelForSeq2SeqLM

    more = {"config": config, "dtype": torch.float32, "use_safetensors": True}
    model: nn.Module = _loaded(AutoModelForSeq2SeqLM, name, download, **more)
    return model


def build_model(config: Any) -> nn.Module:
    """Return a model of a configuration with random weights."""
    from transformers import AutoModelForSeq2SeqLM

    factory: Any = AutoModelForSeq2SeqLM
    model: nn.Module = factory.from_config(config, dtype=torch.float32)
    return model


def config_of_state(state: Mapping[str, Any]) -> Any:
    """Return the configuration that a state holds."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**state)


def with_dropout(config: Any, dropout: float | None) -> Any:
    """Return a configuration with another share of features dropped in training, under the name its kind gives it."""
    name = dropout_name(config)
    if dropout is not None and name:
        setattr(config, name, dropout)
    return config


def dropout_name(config: Any) -> str:
    """Return the name under which a configuration has its dropout; '' where it has none."""
    return next((name for name in DROPOUTS if hasattr(config, name)), "")


def check_vocabulary(tokens: Tokens, config: Any, name: str) -> None:
    """Raise UsageError where a tokenizer has more tokens than the model."""
    if len(tokens) > config.vocab_size:
        why = f"the tokenizer has {len(tokens)} tokens, the model {config.vocab_size}"
        raise _refused(name, why, "save both again, after model.resize_token_embeddings(len(tokenizer))")


def positions_of(config: Any) -> int | None:
    """Return the most tokens that a model has places for, or None where it has no such limit, as T5."""
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing bars of progress between the lines of trainkit."""
    from transformers.utils import logging

    drew = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drew:
            logging.enable_progress_bar()


def _loaded(factory: Any, name: str, download: bool, **more: Any) -> Any:
    folder = Path(name).expanduser()
    source = str(folder) if folder.is_dir() else name
    try:
        with without_bars():
            return factory.from_pretrained(source, local_files_only=folder.is_dir() or not download, **more)
    except Exception as error:  # whatever a library raises at a folder that is not what it should be
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = printable(lines[0])[:300] if lines else type(error).__name__
        if folder.is_dir():
            do = "name a folder that save_pretrained wrote, tokenizer and all"
        elif download:
            do = "check the name and the network, or name a folder"
        else:
            why = "it is no folder, and not among what transformers downloaded before"
            do = "name a folder, or allow the network by --set task.download=true"
        raise _refused(name, why, do) from error


def _refused(name: str, why: str, do: str) -> UsageError:
    return UsageError(f"task.model: no sequence-to-sequence model can be loaded from {name!r}", why=why, do=do)


@dataclass(frozen=True)
class Origin:
    """Say where model and tokenizer are from.

    Args:
        model: folder or name of a model; None: it is built, and its tokenizer trained.
        download: whether it may be fetched from the hub.
        size: of a model that is built.
        vocab_size: most tokens of a tokenizer that is trained.
        dropout: share of features dropped in training; None for the model's own.
    """

    model: str | None
    download: bool
    size: Size
    vocab_size: int
    dropout: float | None

    def learned(self, texts: Callable[[], Iterable[str]], cache: Cache | None) -> tuple[Any, Tokens]:
        """Return configuration and tokenizer.

        Args:
            texts: gives those of the training split, which a tokenizer is trained on.
            cache: where a trained tokenizer is kept.
        """
        if self.model is not None:
            config, tokens = load_config(self.model, self.download), load_tokens(self.model, self.download)
            check_vocabulary(tokens, config, self.model)
            if not tokens.keeps_lines and len(tokens) < config.vocab_size:
                tokens = with_lines(tokens)
        else:
            tokens = trained_once(texts, self.vocab_size, cache)
            pad, eos = tokens.tokenizer.pad_token_id, tokens.tokenizer.eos_token_id
            config = config_of(self.size, self.vocab_size, pad, eos, DROPOUT)
        return with_dropout(config, self.dropout), tokens

    def build(self, config: Any, *, with_weights: bool) -> nn.Module:
        """Return a fresh model, with the weights of its folder where it has one and they are asked for."""
        if self.model is None or not with_weights:
            return build_model(config)
        return load_model(self.model, config, self.download)
