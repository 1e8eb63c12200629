"""Pretrained models in local folders in the Hugging Face format: what they are made of, and their networks.

transformers is imported only where a backbone is asked for, and never asks the network. What a model is made of
(config, tokenizer) is kept with the task and its weights with the run's checkpoints: a trained run needs no folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trainkit.errors import UsageError, printable

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
VISUAL, TEXT = "vit", "bert"
TOKENIZERS = ("tokenizer.json", "vocab.txt")
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Backbone:
    """Hold what a backbone is made of.

    Args:
        config: of the architecture, as config.json has it.
        folder: where pretrained weights are read when a model is built; '' where a checkpoint will bring them.
        mean: that the pictures were shifted by, for a ViT.
        spread: that they were then divided by.
        tokenizer: as tokenizer.json has it, for a BERT.
    """

    config: Mapping[str, Any]
    folder: str = ""
    mean: tuple[float, ...] = HALF
    spread: tuple[float, ...] = HALF
    tokenizer: str = ""

    @property
    def width(self) -> int:
        """Return the features of a state."""
        return int(self.config["hidden_size"])

    @property
    def patch(self) -> int:
        """Return the side of a patch in pixels."""
        return int(self.config["patch_size"])

    def state_dict(self) -> dict[str, Any]:
        """Return what a model of it needs, as JSON."""
        spread = {"mean": list(self.mean), "spread": list(self.spread)}
        return {"config": dict(self.config), "tokenizer": self.tokenizer, **spread}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Backbone:
        """Return what `state_dict` told of; its weights are a checkpoint's."""
        return cls(state["config"], "", tuple(state["mean"]), tuple(state["spread"]), state["tokenizer"])


def read_backbone(option: str, folder: str, wanted: str) -> Backbone:
    """Return what the backbone in a folder is made of.

    Args:
        option: that named the folder, for messages.
        folder: a local folder with config.json and model.safetensors, and with a tokenizer for a BERT.
        wanted: the architecture, as config.json names it: 'vit' or 'bert'.

    Raises:
        UsageError: the folder or a file of it is missing, the architecture is another one, or transformers is missing.
    """
    place = Path(folder).expanduser()
    config = _json(place / CONFIG, option)
    if config.get("model_type") != wanted:
        raise UsageError(
            f"{option} takes a model of type '{wanted}', and this one is '{printable(str(config.get('model_type')))}'",
            where=str(place / CONFIG),
        )
    auto = _transformers(option)
    with _explained(option, place):
        whole = json.loads(auto.AutoConfig.from_pretrained(place, local_files_only=True).to_json_string(use_diff=False))
        if wanted == TEXT:
            return Backbone(whole, str(place), tokenizer=_tokenizer(auto, place, whole["vocab_size"]))
    looks = _json(place / PREPROCESSING, option) if (place / PREPROCESSING).is_file() else {}
    mean, spread = looks.get("image_mean") or HALF, looks.get("image_std") or HALF
    return Backbone(whole, str(place), tuple(mean), tuple(spread))


def network(backbone: Backbone, option: str) -> nn.Module:
    """Return the network of a backbone, with its pretrained weights where they are to be read from its folder.

    On the meta device it has no weights. Raises UsageError where transformers is missing or weights cannot be read.
    """
    auto = _transformers(option)
    config = {name: value for name, value in backbone.config.items() if name != "model_type"}
    # The pooler is left out: nothing reads it, and what nothing reads cannot be learned.
    model: nn.Module = auto.AutoModel.from_config(
        auto.AutoConfig.for_model(backbone.config["model_type"], **config), add_pooling_layer=False
    )
    if backbone.folder and not any(parameter.is_meta for parameter in model.parameters()):
        place = Path(backbone.folder)
        with _explained(option, place), _quiet():
            trained, report = auto.AutoModel.from_pretrained(
                place,
                local_files_only=True,
                use_safetensors=True,
                add_pooling_layer=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
            if report["missing_keys"]:
                raise ValueError(f"no weights of {', '.join(sorted(report['missing_keys'])[:3])}")
            model.load_state_dict(trained.state_dict())
    return model


def _tokenizer(auto: Any, place: Path, words: int) -> str:
    """Return a folder's tokenizer as tokenizer.json has it."""
    # Without either file transformers makes up a tokenizer that knows no word.
    if not any((place / name).is_file() for name in TOKENIZERS):
        raise ValueError(f"there is no tokenizer: neither {' nor '.join(TOKENIZERS)}")
    tokenizer = auto.AutoTokenizer.from_pretrained(place, local_files_only=True).backend_tokenizer
    if tokenizer.get_vocab_size() > words:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} words, and the model {words}")
    return str(tokenizer.to_str())


def _json(path: Path, option: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{option} names no folder of a pretrained model",
            where=str(path),
            why=printable(str(error)),
            do="name a local folder with config.json and model.safetensors",
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{option}: this file holds no object", where=str(path))
    return content


def _transformers(option: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"{option} needs the package transformers",
            why=printable(str(error)),
            do="pip install 'trainkit-task-layout[backbones]', or leave the option out",
        ) from error
    return transformers


@contextlib.contextmanager
def _explained(option: str, place: Path) -> Iterator[None]:
    """Turn whatever transformers says of a folder into one clear message."""
    try:
        yield
    except Exception as error:
        raise UsageError(
            f"{option}: the pretrained model cannot be read",
            where=str(place),
            why=printable(f"{type(error).__name__}: {error}".splitlines()[0]),
            do="the folder needs config.json, model.safetensors and, for text, a tokenizer; nothing is downloaded",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing the weights that are left out, as those of the pooler."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
