"""The first layout model: screenshot and structure read together, the layout written word by word.

Patches and structure nodes pass a joint pre-LN encoder (early fusion). A causal decoder writes the linearised layout; a
pointer is scored by the product of the decoder's state with the encoded node, and read back as that node, so that no
combination of sources needs to have been seen.  [reading: pointer head of 7.1 and 3.3, in a sequence]
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .vocabulary import BUCKETS, END_ID, PAD_ID, UNKNOWN_ID

DEPTHS, SIBLINGS = 32, 64
ABSENT_LOGIT = -4.0


def sin_cos(positions: int, width: int) -> Tensor:
    """Return sine and cosine embeddings of positions, [positions, width] [paper 1706.03762]."""
    frequencies = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def sin_cos_2d(side: int, width: int) -> Tensor:
    """Return embeddings of the cells of a square grid, [side * side, width]: rows in one half, columns in the other."""
    half = sin_cos(side, width // 2)
    rows, columns = half[:, None].expand(-1, side, -1), half[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, -1)


@dataclass(slots=True)
class Memory:
    """Hold what was read: states [B, M, d], which of them are real ([B, 1, 1, M], None: all), and the nodes' part."""

    states: Tensor
    mask: Tensor | None
    nodes: Tensor
    node_mask: Tensor


@dataclass(slots=True)
class Cache:
    """Hold a decoder layer's keys and values: of the words written so far, and of the memory."""

    written: tuple[Tensor, Tensor]
    memory: tuple[Tensor, Tensor] | None = field(default=None)


class Attention(nn.Module):
    """Attend with several heads from `x` to `context`."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, each [B, heads, M, width / heads]."""
        batch, length, _ = context.shape
        both = self.key_value(context).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return both[0], both[1]

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        batch, length, width = x.shape
        query = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, *keys_values, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Feedforward(nn.Sequential):
    """Widen four times, bend, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class EncoderLayer(nn.Module):
    """Mix positions, then features, each around a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feedforward = Attention(width, heads, dropout), Feedforward(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm_attention(x)
        x = x + self.drop(self.attention(y, self.attention.keys_values(y), mask))
        return x + self.drop(self.feedforward(self.norm_feedforward(x)))


class DecoderLayer(nn.Module):
    """Look back at what is written, then at the memory, then mix features, each around a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_written, self.norm_memory, self.norm_feedforward = (nn.LayerNorm(width) for _ in range(3))
        self.written, self.memory = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.feedforward = Feedforward(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Return the layer's output; with a cache, `x` is the one next position and the cache grows by it."""
        y = self.norm_written(x)
        keys_values = self.written.keys_values(y)
        if cache is None:
            from_memory = self.memory.keys_values(memory.states)
        else:
            keys_values = tuple(torch.cat(pair, dim=2) for pair in zip(cache.written, keys_values, strict=True))
            cache.written = keys_values
            from_memory = cache.memory = cache.memory or self.memory.keys_values(memory.states)
        x = x + self.drop(self.written(y, keys_values, causal=cache is None))
        x = x + self.drop(self.memory(self.norm_memory(x), from_memory, memory.mask))
        return x + self.drop(self.feedforward(self.norm_feedforward(x)))


class Visual(nn.Module):
    """Cut a picture into patches and embed them with their place."""

    def __init__(self, image_size: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(3 * patch * patch, width)
        self.register_buffer("places", sin_cos_2d(image_size // patch, width), persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        batch, channels, height, width = pixel_values.shape
        p = self.patch
        cells = pixel_values.view(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        out: Tensor = self.project(cells.reshape(batch, -1, channels * p * p)) + self.places
        return out


class Structure(nn.Module):
    """Embed the nodes of a structure: tag, classes as a bag, depth, place among siblings and in reading order."""

    def __init__(self, vocabulary_size: int, nodes: int, width: int) -> None:
        super().__init__()
        self.tag = nn.Embedding(vocabulary_size, width)
        self.classes = nn.Embedding(BUCKETS, width, padding_idx=0)
        self.depth = nn.Embedding(DEPTHS, width)
        self.sibling = nn.Embedding(SIBLINGS, width)
        for table in (self.tag, self.classes, self.depth, self.sibling):
            nn.init.normal_(table.weight, std=0.2)
        self.register_buffer("order", sin_cos(nodes, width), persistent=False)

    def forward(self, struct_ids: Tensor, struct_classes: Tensor, depth: Tensor, sibling: Tensor) -> Tensor:
        order: Tensor = self.get_buffer("order")[: struct_ids.shape[1]]
        words = self.tag(struct_ids) + self.classes(struct_classes).sum(dim=2)
        out: Tensor = words + self.depth(depth) + self.sibling(sibling) + order
        return out


class LayoutModel(nn.Module):
    """Write layouts from screenshots, with or without the structure of the page.

    Args:
        words: number of words that are not pointers; the word behind the pointers (mask) is one more.
        pointers: number of structure nodes that can be pointed to.
        image_size: side of the square picture in pixels.
        patch: side of a patch in pixels.
        width: features of a position.
        heads: attention heads.
        encoder_layers: layers that read.
        decoder_layers: layers that write.
        dropout: share of features dropped in training.
        max_length: most words of a layout.
    """

    def __init__(
        self,
        words: int,
        pointers: int,
        image_size: int,
        patch: int,
        width: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
        max_length: int,
    ) -> None:
        super().__init__()
        self.words, self.pointers, self.max_length = words, pointers, max_length
        self.visual = Visual(image_size, patch, width)
        self.structure = Structure(words, pointers, width)
        self.modality = nn.Parameter(torch.randn(2, width) * 0.2)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.embed = nn.Embedding(words + 1, width)
        self.embed_pointer = nn.Linear(width, width)
        nn.init.normal_(self.embed.weight, std=0.2)
        self.register_buffer("places", sin_cos(max_length, width), persistent=False)
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, words + 1)
        self.pointer_query, self.pointer_key = nn.Linear(width, width), nn.Linear(width, width)
        self.absent = nn.Parameter(torch.tensor(ABSENT_LOGIT))
        self.recompute = False

    def gradient_checkpointing_enable(self) -> None:
        """Recompute each layer in the backward pass: less memory, the same gradient."""
        self.recompute = True

    def _through(self, layer: nn.Module, *inputs: object) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            out: Tensor = layer(*inputs)
            return out
        # Imported where it is asked for: it brings PyTorch's compiler along.
        from torch.utils.checkpoint import checkpoint

        return checkpoint(layer, *inputs, use_reentrant=False)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor,
        struct_ids: Tensor | None = None,
        struct_classes: Tensor | None = None,
        depth: Tensor | None = None,
        sibling: Tensor | None = None,
        struct_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `logits` [B, L, V] for labels [B, L], each from the labels before it (teacher forcing).

        Args:
            pixel_values: [B, 3, H, W].
            labels: [B, L], ignored positions below 0.
            struct_ids: [B, S] tags of the structure's nodes.
            struct_classes: [B, S, C] their classes by bucket, 0 for none.
            depth: [B, S] level of each node.
            sibling: [B, S] place of each node among its siblings.
            struct_mask: [B, S] True where a node is real.
        """
        memory = self.encode(pixel_values, struct_ids, struct_classes, depth, sibling, struct_mask)
        before = F.pad(labels[:, :-1].clamp(min=PAD_ID), (1, 0), value=PAD_ID)
        x = self.drop(self.embed_words(before, memory) + self.get_buffer("places")[: labels.shape[1]])
        for layer in self.decoder:
            x = self._through(layer, x, memory)
        return {"logits": self.score(x, memory)}

    def encode(
        self,
        pixel_values: Tensor,
        struct_ids: Tensor | None = None,
        struct_classes: Tensor | None = None,
        depth: Tensor | None = None,
        sibling: Tensor | None = None,
        struct_mask: Tensor | None = None,
    ) -> Memory:
        """Return the encoded screenshot and structure."""
        x = self.visual(pixel_values) + self.modality[0]
        cells, mask = x.shape[1], None
        if struct_ids is None or struct_classes is None or depth is None or sibling is None or struct_mask is None:
            struct_mask = x.new_zeros(x.shape[0], 0, dtype=torch.bool)
        else:
            x = torch.cat([x, self.structure(struct_ids, struct_classes, depth, sibling) + self.modality[1]], dim=1)
            mask = F.pad(struct_mask, (cells, 0), value=True)[:, None, None]
        x = self.drop(x)
        for layer in self.encoder:
            x = self._through(layer, x, mask)
        x = self.encoder_norm(x)
        return Memory(x, mask, x[:, cells:], struct_mask)

    def embed_words(self, ids: Tensor, memory: Memory) -> Tensor:
        """Return the embeddings [B, L, d] of words; a pointer's is made of the node it points to."""
        pointer = (ids >= self.words) & (ids < self.words + self.pointers)
        mask_id = ids == self.words + self.pointers
        word = self.embed(ids.where(~pointer, UNKNOWN_ID).where(~mask_id, self.words))
        if not memory.nodes.shape[1]:
            return word
        target = (ids - self.words).clamp(0, memory.nodes.shape[1] - 1)
        nodes = self.embed_pointer(memory.nodes)
        pointed = nodes.gather(1, target[..., None].expand(-1, -1, nodes.shape[2]))
        return torch.where(pointer[..., None], pointed, word)

    def score(self, x: Tensor, memory: Memory) -> Tensor:
        """Return logits [B, L, words + pointers + 1]; pointers to no node share one learned finite logit."""
        x = self.decoder_norm(x)
        word = self.head(x)
        scores = self.pointer_query(x) @ self.pointer_key(memory.nodes).transpose(1, 2) * x.shape[-1] ** -0.5
        absent = self.absent.to(scores.dtype)
        scores = torch.where(memory.node_mask[:, None], scores, absent)
        rest = absent.expand(*scores.shape[:2], self.pointers - scores.shape[2])
        return torch.cat([word[..., : self.words], scores, rest, word[..., self.words :]], dim=-1)

    @torch.no_grad()
    def generate(self, memory: Memory, limit: int) -> Tensor:
        """Return the most likely words one by one, [B, up to limit], PAD after END; only possible words are taken."""
        batch = memory.states.shape[0]
        heads = [layer.written.heads for layer in self.decoder]
        caches = [_empty_cache(memory.states, count) for count in heads]
        allowed = self._allowed(memory)
        ids = memory.states.new_full((batch, 1), PAD_ID, dtype=torch.long)
        ended = torch.zeros_like(ids, dtype=torch.bool)
        written: list[Tensor] = []
        for position in range(min(limit, self.max_length)):
            x = self.embed_words(ids, memory) + self.get_buffer("places")[position]
            for layer, cache in zip(self.decoder, caches, strict=True):
                x = layer(x, memory, cache)
            ids = self.score(x, memory).masked_fill(~allowed, float("-inf")).argmax(dim=-1)
            ids = ids.masked_fill(ended, PAD_ID)
            ended = ended | (ids == END_ID)
            written.append(ids)
            # Asking costs a synchronisation on a GPU.
            if position % 8 == 7 and bool(ended.all()):
                break
        return torch.cat(written, dim=1)

    def _allowed(self, memory: Memory) -> Tensor:
        batch, nodes = memory.node_mask.shape
        allowed = torch.ones(batch, 1, self.words + self.pointers + 1, dtype=torch.bool, device=memory.states.device)
        allowed[..., [PAD_ID, UNKNOWN_ID, self.words + self.pointers]] = False
        allowed[..., self.words : self.words + self.pointers] = False
        allowed[..., self.words : self.words + nodes] = memory.node_mask[:, None]
        return allowed


def _empty_cache(states: Tensor, heads: int) -> Cache:
    batch, _, width = states.shape
    empty = states.new_empty(batch, heads, 0, width // heads)
    return Cache((empty, empty))
