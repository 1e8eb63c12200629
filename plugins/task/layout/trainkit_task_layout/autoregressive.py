"""The left-to-right model: a causal decoder writes a layout word by word; a pointer is scored against its node."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .canvas import PLACES
from .encoder import Memory, PageEncoder
from .layers import ANCESTORS, EXTENT, PLACE_WAVES, Attention, Feedforward, recomputed, sin_cos
from .vocabulary import CLOSE_ID, END_ID, OPEN_ID, PAD_ID, UNKNOWN_ID

ABSENT_LOGIT = -4.0
OTHER, NODE, OPEN, CLOSE = range(4)


@dataclass(slots=True)
class Cache:
    """Hold a decoder layer's keys and values: of the words written so far, and of the memory."""

    written: tuple[Tensor, Tensor]
    memory: tuple[Tensor, Tensor] | None = field(default=None)


class WordLayer(nn.Module):
    """Look back at what is written, then at the memory, then mix features, each around a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_written, self.norm_memory, self.norm_feedforward = (nn.LayerNorm(width) for _ in range(3))
        self.written, self.memory = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.feedforward = Feedforward(width)
        self.drop = nn.Dropout(dropout)
        # What was written and what is made of it come in by and by: at first a word asks the page alone.
        for begun in (self.written.out, self.feedforward[-1]):
            nn.init.zeros_(begun.weight)
            nn.init.zeros_(begun.bias)

    def forward(self, x: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Return the layer's output; with a cache, `x` is the one next position and the cache grows by it."""
        y = self.norm_written(x)
        keys_values = self.written.keys_values(y)
        if cache is None:
            from_memory = self.memory.keys_values(memory.placed)
        else:
            keys_values = tuple(torch.cat(pair, dim=2) for pair in zip(cache.written, keys_values, strict=True))
            cache.written = keys_values
            from_memory = cache.memory = cache.memory or self.memory.keys_values(memory.placed)
        x = x + self.drop(self.written(y, keys_values, causal=cache is None))
        x = x + self.drop(self.memory(self.norm_memory(x), from_memory, memory.mask))
        return x + self.drop(self.feedforward(self.norm_feedforward(x)))


class Trail:
    """Follow where in the tree the next word stands: for each open level, how many nodes it holds so far.

    Args:
        batch: number of layouts.
        levels: levels that are told apart.
        device: of the tensors.
    """

    def __init__(self, batch: int, levels: int, device: torch.device) -> None:
        self.counts = torch.zeros(batch, levels, dtype=torch.long, device=device)
        self.shares = torch.zeros(batch, levels, device=device)
        self.depth = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self.levels = levels

    def places(self) -> Tensor:
        """Return where the nearest open nodes stand among their siblings, [B, 3], below 0 where there is none.

        The third of usually four siblings stands at 2.5 / 4; how many there are is not yet known.
        """
        levels = self.depth - 1 - torch.arange(ANCESTORS, device=self.shares.device)
        shares = self.shares.gather(1, levels.clamp(0, self.levels - 1))
        return shares.where(levels >= 0, -1.0)

    def rows(self) -> Tensor:
        """Return the rows of the table of places, [B, levels], -1 for levels that are not open."""
        level = torch.arange(self.levels, device=self.counts.device)
        rows = level * PLACES + self.counts.clamp(max=PLACES - 1)
        return rows.where(level <= self.depth, -1)

    def follow(self, kinds: Tensor, siblings: Tensor) -> None:
        """Take the next word of each layout.

        Args:
            kinds: [B, 1] OTHER, NODE, OPEN or CLOSE.
            siblings: [B, 1] how many children the parent of such a node usually has.
        """
        here = self.depth.clamp(max=self.levels - 1)
        share = (self.counts.gather(1, here) + 0.5) / siblings
        self.shares.scatter_(1, here, torch.where(kinds == NODE, share, self.shares.gather(1, here)))
        self.counts.scatter_add_(1, here, (kinds == NODE).long())
        self.depth = (self.depth + (kinds == OPEN).long() - (kinds == CLOSE).long()).clamp(min=0)
        inside = self.depth.clamp(max=self.levels - 1)
        kept = self.counts.gather(1, inside).where(kinds != OPEN, 0)
        self.counts.scatter_(1, inside, kept)


class LayoutWriter(nn.Module):
    """Write layouts from screenshots, with or without the structure of the page.

    Args:
        encoder: reads pages.
        words: number of words that are not pointers; the word behind the pointers (mask) is one more.
        pointers: number of structure nodes that can be pointed to.
        kinds: for each word that is no pointer, OTHER, NODE, OPEN or CLOSE.
        siblings: for each word that is no pointer, how many children the parent of such a node usually has.
        width: features of a position.
        heads: attention heads.
        layers: decoder layers.
        places: rows of the table of places, a multiple of 16.
        max_length: most words of a layout.
        dropout: share of features dropped in training.
    """

    def __init__(
        self,
        encoder: PageEncoder,
        words: int,
        pointers: int,
        kinds: list[int],
        siblings: list[float],
        width: int,
        heads: int,
        layers: int,
        places: int,
        max_length: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.words, self.pointers, self.max_length = words, pointers, max_length
        self.levels = places // PLACES
        self.embed = nn.Embedding(words + 1, width)
        self.place = nn.Embedding(places, width)
        self.embed_pointer = nn.Linear(width, width)
        # Fainter than the waves of places, which tell at once where on the page to look.
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        nn.init.normal_(self.place.weight, std=width**-0.5)
        self.kinds: Tensor
        self.register_buffer("kinds", torch.tensor([*kinds, *[OTHER] * (pointers + 1)]), persistent=False)
        self.siblings: Tensor
        self.register_buffer("siblings", torch.tensor([*siblings, *[1.0] * (pointers + 1)]), persistent=False)
        self.decoder = nn.ModuleList(WordLayer(width, heads, dropout) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, words + 1)
        self.pointer_query, self.pointer_key = nn.Linear(width, width), nn.Linear(width, width)
        self.absent = nn.Parameter(torch.tensor(ABSENT_LOGIT))
        self.recompute = False

    def gradient_checkpointing_enable(self) -> None:
        """Recompute each layer in the backward pass: less memory, the same gradient."""
        self.recompute = self.encoder.recompute = True

    def forward(
        self,
        labels: Tensor,
        word_paths: Tensor,
        word_places: Tensor,
        pixel_values: Tensor | None = None,
        struct_ids: Tensor | None = None,
        struct_classes: Tensor | None = None,
        depth: Tensor | None = None,
        sibling: Tensor | None = None,
        struct_mask: Tensor | None = None,
        struct_tokens: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `logits` [B, L, V] for labels [B, L], each from the labels before it (teacher forcing).

        Args:
            labels: [B, L], ignored positions below 0.
            word_paths: [B, L, levels] where each word stands, as `Trail.rows` tells it before the word is written.
            word_places: [B, L, 3] where its nearest ancestors stand, as `Trail.places` tells it.
            pixel_values: [B, 3, H, W].
            struct_ids: [B, S] rows of the tags of the structure's nodes.
            struct_classes: [B, S, C] rows of their classes, 0 for none.
            depth: [B, S] level of each node.
            sibling: [B, S] place of each node among its siblings.
            struct_mask: [B, S] True where a node is real.
            struct_tokens: [B, S, T] tokens of the nodes' text, -1 behind their end.
        """
        structure = (struct_ids, struct_classes, depth, sibling, struct_mask, struct_tokens)
        memory = self.encoder(labels.shape[0], pixel_values, *structure)
        before = F.pad(labels[:, :-1].clamp(min=PAD_ID), (1, 0), value=PAD_ID)
        x = self.drop(self.embed_words(before, word_paths, word_places, memory))
        for layer in self.decoder:
            x = recomputed(layer, self.recompute, x, memory)
        return {"logits": self.score(x, memory)}

    def embed_words(self, ids: Tensor, paths: Tensor, places: Tensor, memory: Memory) -> Tensor:
        """Return the embeddings [B, L, d] of the words before, and of the places where the next ones stand."""
        pointer = (ids >= self.words) & (ids < self.words + self.pointers)
        mask_id = ids == self.words + self.pointers
        word = self.embed(ids.where(~pointer, UNKNOWN_ID).where(~mask_id, self.words))
        word = word + (self.place(paths.clamp(min=0)) * (paths >= 0)[..., None]).sum(dim=2)
        each = word.shape[-1] // ANCESTORS // 2 * 2
        shares = sin_cos(places * EXTENT, each, PLACE_WAVES) * (places >= 0)[..., None]
        word = word + F.pad(shares.flatten(-2), (0, word.shape[-1] - ANCESTORS * each)).to(word)
        if not memory.nodes.shape[1]:
            return word
        target = (ids - self.words).clamp(0, memory.nodes.shape[1] - 1)
        nodes = self.embed_pointer(memory.nodes)
        pointed = nodes.gather(1, target[..., None].expand(-1, -1, nodes.shape[2]))
        return word + pointed * pointer[..., None]

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
    def generate(self, memory: Memory, limit: int, temperature: float = 0.0, told: Tensor | None = None) -> Tensor:
        """Return words one by one, [B, up to limit], PAD after END; only possible words are taken.

        Args:
            memory: the pages.
            limit: most words.
            temperature: 0 takes the most likely word.
            told: [B, limit] words that take the place of those that are taken.
        """
        batch, device = memory.states.shape[0], memory.states.device
        caches = [_empty_cache(memory.states, layer.written.heads) for layer in self.decoder]
        allowed = self.allowed(memory)
        trail = Trail(batch, self.levels, device)
        ids = torch.full((batch, 1), PAD_ID, dtype=torch.long, device=device)
        ended = torch.zeros_like(ids, dtype=torch.bool)
        written: list[Tensor] = []
        for position in range(min(limit, self.max_length)):
            x = self.embed_words(ids, trail.rows()[:, None], trail.places()[:, None], memory)
            for layer, cache in zip(self.decoder, caches, strict=True):
                x = layer(x, memory, cache)
            scores = self.score(x, memory).masked_fill(~allowed, float("-inf"))
            if temperature > 0:
                ids = torch.multinomial((scores[:, 0] / temperature).softmax(-1), 1)
            else:
                ids = scores.argmax(dim=-1)
            ids = ids.masked_fill(ended, PAD_ID) if told is None else told[:, position : position + 1]
            ended = ended | (ids == END_ID)
            trail.follow(self.kinds[ids], self.siblings[ids])
            written.append(ids)
            # Asking costs a synchronisation on a GPU.
            if position % 8 == 7 and bool(ended.all()):
                break
        return torch.cat(written, dim=1)

    def allowed(self, memory: Memory) -> Tensor:
        """Return which words can be written, [B, 1, words + pointers + 1] bool."""
        batch, nodes = memory.node_mask.shape
        allowed = torch.ones(batch, 1, self.words + self.pointers + 1, dtype=torch.bool, device=memory.states.device)
        allowed[..., [PAD_ID, UNKNOWN_ID, self.words + self.pointers]] = False
        allowed[..., self.words : self.words + self.pointers] = False
        allowed[..., self.words : self.words + nodes] = memory.node_mask[:, None]
        return allowed


def kind_of(word: str, number: int) -> int:
    """Return what a word does to the place of the next one."""
    if number in (OPEN_ID, CLOSE_ID):
        return OPEN if number == OPEN_ID else CLOSE
    return OTHER if word[0] in "<@$" else NODE


def _empty_cache(states: Tensor, heads: int) -> Cache:
    batch, _, width = states.shape
    empty = states.new_empty(batch, heads, 0, width // heads)
    return Cache((empty, empty))
