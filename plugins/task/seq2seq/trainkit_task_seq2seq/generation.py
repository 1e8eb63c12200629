"""Writing: what a model answers, by its own randomness, whole or piece by piece."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from trainkit.answering import random_states_kept
from trainkit.randomness import Purpose, mixed


@dataclass(frozen=True)
class Generation:
    """Hold how texts are written.

    Args:
        do_sample: whether tokens are drawn; else the most likely one is taken.
        temperature: of the distribution that is drawn from.
        top_p: tokens are drawn from the most likely ones that together have this probability.
        beams: of beam search; 1 for none.
        max_new_tokens: most tokens of an answer.
        exactly: so many tokens, if fewer than these, and no end before; None: an answer ends where the model ends it.
    """

    do_sample: bool = True
    temperature: float = 0.7
    top_p: float = 0.9
    beams: int = 1
    max_new_tokens: int = 200
    exactly: int | None = None

    def config(self, model: Any) -> Any:
        """Return these options on top of those that the model brings along, as its forced tokens."""
        import copy

        found = copy.deepcopy(model.generation_config)
        found.max_length, found.max_new_tokens, found.num_beams = None, self.max_new_tokens, self.beams
        if self.exactly is not None:
            found.min_new_tokens = found.max_new_tokens = min(self.exactly, self.max_new_tokens)
        found.do_sample, found.use_cache, found.top_k = self.do_sample, True, 0 if self.do_sample else None
        found.temperature = self.temperature if self.do_sample else None
        found.top_p = self.top_p if self.do_sample else None
        return found


def unwrapped(model: nn.Module) -> Any:
    """Return the model that can write: what wraps it for several ranks cannot."""
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) and not hasattr(model, "generate") else model


@contextlib.contextmanager
def own_randomness(*words: int) -> Iterator[None]:
    """Draw from a stream of its own, which follows from the seed in force and the words; the run's is left alone."""
    seed = mixed(torch.initial_seed(), Purpose.EVALUATION, *words)
    with random_states_kept():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        yield


@torch.no_grad()
def written(
    model: nn.Module, ids: Tensor, mask: Tensor, options: Generation, words: tuple[int, ...], **more: Any
) -> Tensor:
    """Return the tokens that a model writes for inputs, int64 [B, L].

    Args:
        model: in evaluation mode.
        ids: [B, S] inputs.
        mask: [B, S] 1 where they are real.
        options: how to write.
        words: with the seed in force, decide what is drawn.
        more: further arguments of transformers' `generate`.
    """
    writer = unwrapped(model)
    with own_randomness(*words):
        found: Tensor = writer.generate(
            input_ids=ids, attention_mask=mask, generation_config=options.config(writer), **more
        )
    return found


def pieces(
    model: nn.Module, ids: Tensor, mask: Tensor, options: Generation, words: tuple[int, ...], tokenizer: Any
) -> Generator[str, None, str]:
    """Yield what a model writes for one input as it grows, in whole words, and return all of it.

    Beam search knows its answer only at the end: it comes in one piece. Who stops listening stops the writing.
    """
    from transformers import TextIteratorStreamer

    if options.beams > 1:
        (row,) = written(model, ids, mask, options, words)
        whole: str = tokenizer.decode(row, skip_special_tokens=True)
        yield whole
        return whole
    streamer = TextIteratorStreamer(tokenizer, skip_special_tokens=True)
    stopped, failures = threading.Event(), queue.SimpleQueue()  # type: ignore[var-annotated]

    def stops(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        del scores
        return torch.full((len(input_ids),), stopped.is_set(), device=input_ids.device)

    def write() -> None:
        try:
            written(model, ids, mask, options, words, streamer=streamer, stopping_criteria=[stops])
        except BaseException as error:
            failures.put(error)
        finally:
            streamer.text_queue.put(streamer.stop_signal)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    text = ""
    try:
        for piece in streamer:
            if piece:
                text += piece
                yield piece
    finally:
        stopped.set()
        thread.join()
    if not failures.empty():
        raise failures.get()
    return text
