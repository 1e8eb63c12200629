"""Backbones: a pretrained ViT that sees, a pretrained BERT that reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .pretrained import Backbone, network

NO_TOKEN = -1


class VisualBackbone(nn.Module):
    """See a picture as cells by a pretrained ViT: [B, 3, H, W] in [-1, 1] to [B, H/p, W/p, d].

    Position embeddings are interpolated to the size of the picture.

    Args:
        backbone: what the ViT is made of.
        width: features of a cell.
    """

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.patch = backbone.patch
        self.backbone = network(backbone, "task.visual_backbone")
        self.project = nn.Linear(backbone.width, width)
        mean, spread = (torch.tensor(numbers).view(3, 1, 1) for numbers in (backbone.mean, backbone.spread))
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        rows, columns = (side // self.patch for side in pixel_values.shape[2:])
        seen = ((pixel_values + 1) / 2 - self.mean) / self.spread
        states = self.backbone(pixel_values=seen, interpolate_pos_encoding=True).last_hidden_state
        out: Tensor = self.project(states[:, -rows * columns :]).unflatten(1, (rows, columns))
        return out


class TextBackbone(nn.Module):
    """Read the text of structure nodes by a pretrained BERT: tokens [B, S, T], -1 behind their end, to [B, S, d].

    A node's vector is the mean over its tokens. Equal texts are read once.  [reading]

    Args:
        backbone: what the BERT is made of.
        width: features of a node.
    """

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone = network(backbone, "task.text_backbone")
        self.project = nn.Linear(backbone.width, width)

    def forward(self, struct_tokens: Tensor) -> Tensor:
        texts, which = struct_tokens.flatten(0, 1).unique(dim=0, return_inverse=True)
        real = texts != NO_TOKEN
        # The text of what is no node is empty; it looks at one token, as a row of nothing would be no number.
        looked_at = real | (torch.arange(texts.shape[1], device=texts.device) == 0)
        states = self.backbone(input_ids=texts.clamp(min=0), attention_mask=looked_at.long()).last_hidden_state
        shares = real.to(states.dtype)[..., None]
        vectors = self.project((states * shares).sum(dim=1) / shares.sum(dim=1).clamp(min=1))
        out: Tensor = vectors[which].unflatten(0, struct_tokens.shape[:2])
        return out


class Reader:
    """Cut texts into tokens as a BERT knows them.

    Args:
        tokenizer: as tokenizer.json has it.
        longest: most tokens of a text, its marks of beginning and end among them.
    """

    def __init__(self, tokenizer: str, longest: int) -> None:
        # A part of transformers: it is there where a backbone is.
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(longest)
        self.known: dict[str, list[int]] = {}

    def tokens(self, texts: Sequence[Sequence[str]], width: int) -> Tensor:
        """Return the tokens of the texts of each sample, [B, width, T], -1 behind their end."""
        new = sorted({text for row in texts for text in row} - self.known.keys())
        self.known |= {text: found.ids for text, found in zip(new, self.tokenizer.encode_batch(new), strict=True)}
        rows = [[self.known[text] for text in row[:width]] for row in texts]
        most = max((len(ids) for row in rows for ids in row), default=1)
        tokens = torch.full((len(rows), width, max(1, most)), NO_TOKEN)
        for i, row in enumerate(rows):
            for j, ids in enumerate(row):
                tokens[i, j, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return tokens
