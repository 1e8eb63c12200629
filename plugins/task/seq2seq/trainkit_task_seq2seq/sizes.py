"""Sizes of models that are built, by name: shapes of T5."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SizeName = Literal["micro", "tiny", "mini", "small", "base"]


@dataclass(frozen=True)
class Size:
    """Hold the shape of a T5.

    Args:
        d_model: features of a position.
        d_kv: features of a head.
        d_ff: features between the two maps of a feed-forward layer.
        num_layers: of the encoder, and as many of the decoder.
        num_heads: of attention.
        vocab_size: rows of the table of tokens, where none is asked for.
    """

    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    vocab_size: int


# micro is the shape of 7.3, small and base are those of T5 [paper 1910.10683]; tiny and mini are ours, between them.
SIZES: dict[str, Size] = {
    "micro": Size(64, 16, 128, 2, 4, 512),
    "tiny": Size(128, 32, 512, 3, 4, 4096),
    "mini": Size(256, 64, 1024, 4, 4, 8192),
    "small": Size(512, 64, 2048, 6, 8, 32128),
    "base": Size(768, 64, 3072, 12, 12, 32128),
}


def config_of(size: Size, vocab_size: int, pad: int, eos: int, dropout: float) -> PreTrainedConfig:
    """Return the configuration of a T5 v1.0: tied embeddings, ReLU; it starts to write at the padding token."""
    from transformers import T5Config

    shape = {**asdict(size), "vocab_size": vocab_size}
    made: Any = T5Config
    found: PreTrainedConfig = made(
        **shape, dropout_rate=dropout, pad_token_id=pad, eos_token_id=eos, decoder_start_token_id=pad,
        tie_word_embeddings=True,
    )  # fmt: skip
    return found
