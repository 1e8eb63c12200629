"""The protocols that components keep. Everything here is typing and plain data: importing it loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy as np
    from torch import Tensor, nn

    from .live import Run
    from .plan import Plan, Situation

Sample = Mapping[str, Any]
Batch = Mapping[str, Any]
Outputs = Mapping[str, Any]
SAMPLE_ID = "sample_id"
IGNORED_LABEL = -100


class LossOutput:
    """Carry a loss as a sum and a count, so that the loop can divide over all micro-batches and ranks.

    Args:
        sum: scalar tensor with a gradient: the loss summed over `count` items.
        count: number of items (real tokens, samples, ...): a number or a scalar tensor.
        parts: named parts for the record, each a (sum, count) pair, detached.
        weights: the weight of each part, for the record.
        per_sample: [B] detached mean loss of each sample, where the loss can tell; or a function of it, which
            is called only if somebody asks.
        terms: the unweighted terms that `sum` is made of, each a (sum, count) pair with its gradient, for a loss that
            weighs the terms of another one.
        inactive: names of terms that are wanted and could not be computed, because the batch lacks what they read.
    """

    __slots__ = ("_per_sample", "count", "inactive", "parts", "sum", "terms", "weights")

    def __init__(
        self,
        sum: Tensor,
        count: Tensor | float,
        parts: Mapping[str, tuple[Tensor, Tensor | float]] | None = None,
        weights: Mapping[str, Tensor | float] | None = None,
        per_sample: Tensor | Callable[[], Tensor] | None = None,
        terms: Mapping[str, tuple[Tensor, Tensor | float]] | None = None,
        inactive: Collection[str] = (),
    ) -> None:
        self.sum, self.count = sum, count
        self.parts, self.weights = parts or {}, weights or {}
        self.terms, self.inactive = terms or {}, inactive
        self._per_sample = per_sample

    @property
    def per_sample(self) -> Tensor | None:
        """Return the detached mean loss of each sample [B], or None where the loss cannot tell."""
        if callable(self._per_sample):
            self._per_sample = self._per_sample()
        return self._per_sample


@runtime_checkable
class Dataset(Protocol):
    """Hold samples in a fixed order; a sample's index is its stable id.

    `__getitems__` answers a list of indices with a list of samples, or with a whole batch (a mapping of tensors with
    the samples along dimension 0; what is no tensor is the same for all of them), which is then not collated. Optional
    attributes: `ids` (a name for each sample, for reports), `difficulty` and `quality` (a number for each sample, for
    selections), `groups` (a number for each sample: those of a group belong together, as the windows of a series),
    `lengths` (a number for each sample, which padding follows: samples of like length are batched together),
    `warnings` (what a user should know about data that was read outside of a run).
    """

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> Sequence[Sample] | Batch: ...


@runtime_checkable
class Drawn(Protocol):
    """Be a dataset whose samples differ from draw to draw in training, beside what augmenters do to them."""

    def drawn(self, indices: list[int], numbers: Sequence[int]) -> Sequence[Sample] | Batch:
        """Return samples as `__getitems__` does; numbers[i] follows from seed, epoch, sample and variant, 64 bits."""
        ...


@dataclass(frozen=True)
class Splits:
    """Hold what a task read.

    Args:
        train: what is learned from.
        val: what decides about stopping and the best checkpoint, or None.
        test: what is looked at once, at the end, or None.
        source: what was read, for people: a path, or 'embedded sample'.
        fingerprint: a hash of the content; a resumed run must find the same.
        warnings: what a user should know about the data (how many samples were skipped, repaired faults).
        skipped: (place, reason) of every sample that was left out on request.
    """

    train: Dataset
    val: Dataset | None = None
    test: Dataset | None = None
    source: str = ""
    fingerprint: str = ""
    warnings: Sequence[str] = ()
    skipped: Sequence[tuple[str, str]] = ()

    def items(self) -> list[tuple[str, Dataset]]:
        """Return the (name, dataset) pairs that exist, in the order train, val, test."""
        pairs = (("train", self.train), ("val", self.val), ("test", self.test))
        return [(name, dataset) for name, dataset in pairs if dataset is not None]


class Task(Protocol):
    """Say what is learned: read data, build the model, make batches, turn outputs into predictions.

    Attributes:
        gives: the names found in a batch, in the model's outputs and in the answer of `predict`.
        predicts: those of `gives` that `predict` makes; it is called only when a metric reads one of them.
        sample_keys: the names found in a sample, for augmenters.
        defaults: settings by dotted key, as {"loss.use": "cross-entropy", "metric": ["token-accuracy"]}.

    An optional attribute `techniques` tells strategies what the task makes of techniques, a `trainkit.Technique` by
    name. It is asked for after `fit`, as it may follow from the data.
    """

    gives: frozenset[str]
    predicts: frozenset[str]
    sample_keys: frozenset[str]
    defaults: Mapping[str, Any]

    def read(self, data: Path | None, seed: int) -> Splits:
        """Read and check the data, or make the embedded sample if `data` is None; raise DataError with the place."""
        ...

    def fit(self, train: Dataset) -> None:
        """Learn from the training split alone what the model needs to exist: vocabularies, scales."""
        ...

    def build_model(self) -> nn.Module:
        """Return a fresh model. Its forward parameters name what it takes from a batch."""
        ...

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return the batch of these samples; every tensor has the samples along dimension 0."""
        ...

    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return what the model predicts for a batch, under the names of `predicts`."""
        ...

    def baselines(self) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
        """Return trivial predictors by name: from a batch, the names that metrics read from `predict`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what `fit` learned, as JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class Panel:
    """Hold one thing to look at: a picture [H, W, 3] of bytes, or a text, under a title."""

    title: str
    content: np.ndarray[Any, Any] | str


@dataclass(frozen=True)
class Answer:
    """Hold what a model answers to one input.

    Args:
        name: of the input, for file names and headings.
        files: from a suffix, as '.json', to the content of the file that is written, text or bytes.
        data: the answer as JSON.
        panels: input, truth where there is one, and answer, side by side.
        text: the answer as people read it in a terminal, where it is a text.
    """

    name: str
    files: Mapping[str, str | bytes]
    data: Any
    panels: Sequence[Panel] = ()
    text: str = ""


@dataclass(frozen=True)
class Finding:
    """Hold something that is wrong, or notable, about data.

    Args:
        rule: which rule it breaks, in a word or two, as 'duplicate' or 'blank picture'.
        place: file, or file and line, relative to the data.
        text: what is there, and what should be.
        is_fault: whether the sample cannot be used as it is.
    """

    rule: str
    place: str
    text: str
    is_fault: bool = True


@dataclass(frozen=True)
class Inspection:
    """Hold what was found out about data without training on it.

    Args:
        source: what was looked at.
        format: the format that was recognised, in words.
        samples: usable samples by split.
        findings: every fault and every remark, in the order of the data.
        facts: figures that describe the data, by name.
    """

    source: str
    format: str
    samples: Mapping[str, int]
    findings: Sequence[Finding] = ()
    facts: Mapping[str, float | str] = field(default_factory=dict)


@runtime_checkable
class Inspects(Protocol):
    """Be a task that can look at data and tell all that is wrong with it."""

    def inspect(self, data: Path) -> Inspection: ...


@runtime_checkable
class Answers(Protocol):
    """Be a task that answers new inputs with a trained model.

    Attributes:
        adjustable: the names of options that may change after training, as they do not change the model.
    """

    adjustable: frozenset[str]

    def inputs(self, paths: Sequence[Path]) -> Dataset:
        """Read what is to be answered; the truth need not be there. Raise DataError with the place."""
        ...

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> Sequence[Answer]:
        """Return an answer for each sample; `batch` is made of the samples and on the model's device."""
        ...


@runtime_checkable
class Prompts(Protocol):
    """Be a task that answers texts as they are typed, besides what it reads from files.

    An optional attribute `example_prompts`, a sequence of texts, says what is answered again and again while a model
    trains, for people to see how it comes along.
    """

    def prompts(self, texts: Sequence[str]) -> Dataset:
        """Return a sample for each text, as `inputs` does for what is in a file; raise DataError for one of no use."""
        ...


@runtime_checkable
class Streams(Protocol):
    """Be a task whose answer is a text that can be read while it grows."""

    def stream(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> Generator[str, None, Answer]:
        """Yield the text of the answer to one sample piece by piece, and return the answer that `answers` would give.

        Args:
            model: in evaluation mode.
            batch: made of the sample, on the model's device.
            samples: the one sample.
        """
        ...


@runtime_checkable
class Forwards(Protocol):
    """Be a task that calls its model itself, as one whose forward takes more than batches hold.

    Without this power the parameters of the model's forward name what it takes from a batch.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the outputs of the model for a batch; wherever the core runs a model, it asks for this."""
        ...


@runtime_checkable
class AsTrained(Protocol):
    """Be a task that generates, so that what `predict` and `answers` cost depends on what the model has learned.

    A forecast of time is made of a model that has learned nothing yet, which writes now next to nothing, now all that
    it may.
    """

    def as_trained(self) -> AbstractContextManager[None]:
        """Return what makes answers as long as the right ones while it is in force, wherever a batch has these."""
        ...


@runtime_checkable
class Measures(Protocol):
    """Be a task that says what is measured of a split, where that is more than each sample once.

    Losses, metrics and baselines see it; whatever else is done with a split, as cutting it into folds, has its samples
    as they are.
    """

    def measured(self, dataset: Dataset, count: int) -> Dataset:
        """Return what is measured of the first `count` samples of a split, or of what was chosen from splits."""
        ...


@runtime_checkable
class Folds(Protocol):
    """Be a task that cuts its data into folds itself, as time series do, which are never shuffled.

    The samples of all other tasks are cut by the core: shuffled, stratified by `difficulty`, grouped by `groups`, else
    by `ids`, and by content: samples that differ in nothing but the keys `id` and `source` are in one fold.
    """

    def fold_options(self, fold: str) -> Mapping[str, Any]:
        """Return the options under which the task reads a fold.

        That is '2/5', the second of five, or 'all', where what the folds validate on trains, too. Whatever the fold,
        the test is the same.
        """
        ...


@runtime_checkable
class ChecksPlan(Protocol):
    """Be a task that cannot work under every plan."""

    def check_plan(self, plan: Plan) -> None:
        """Raise UsageError for a plan under which something that was asked of the task would not work."""
        ...


@runtime_checkable
class ChecksRun(Protocol):
    """Be a component that cannot work in every run."""

    def check_run(self, run: Run) -> None:
        """Raise UsageError for a composed run in which it would not work, before anything is written."""
        ...


@runtime_checkable
class Whole(Protocol):
    """Be a task that reads all of some data as one split, to measure a trained model on it.

    Without this power the splits of `read` are taken one after the other.
    """

    def whole(self, data: Path) -> Dataset:
        """Return every sample of the data, seen by what the task learned before; raise DataError with the place."""
        ...


@runtime_checkable
class Pictures(Protocol):
    """Be a task whose samples can be looked at."""

    def picture(self, sample: Sample) -> np.ndarray[Any, Any]:
        """Return a sample as a picture [H, W, 3] of bytes, with what is known about places drawn in."""
        ...


@runtime_checkable
class CheckpointFiles(Protocol):
    """Be a task, or an adapter, that adds small files to every checkpoint, as those that other programs load it by."""

    def checkpoint_files(self, model: nn.Module) -> Mapping[str, str | bytes]:
        """Return the content of each file by its name, as 'tokenizer.json'; it stays the same over a run.

        A task's 'config.json' takes the place of the one that the model's config makes.
        """
        ...


@runtime_checkable
class Exports(Protocol):
    """Be a task that writes a trained model for other programs.

    Of other tasks the weights are written with the files of the power CheckpointFiles.
    """

    def export(self, model: nn.Module, directory: Path) -> None:
        """Write a model, whatever adapter it had worked into its weights, into a folder that is empty."""
        ...


class Strategy(Protocol):
    """Answer a situation with a plan.

    `samples` is the inclusive range of training samples it suits; None where it is taken only by name.
    """

    samples: tuple[int, int | None] | None

    def plan(self, situation: Situation) -> Plan: ...


class Augmenter(Protocol):
    """Return a changed copy of a sample. All randomness comes from the generator; `reads` names the keys it needs."""

    reads: frozenset[str]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample: ...


@runtime_checkable
class BatchAugmenter(Protocol):
    """Be an augmenter that also changes the samples of a batch at once, for datasets that answer with whole batches.

    Sample b is what a call with it and `generators[b]` gives, to the bit; where that is None it stays as it is. The
    batch that goes in is left whole.
    """

    def augment_batch(self, batch: Batch, generators: Sequence[np.random.Generator | None]) -> Batch: ...


class Metric(Protocol):
    """Sum over batches, then compute.

    The parameters of `update` name what is read; `compute` gives a number or a mapping, its first entry the main value.
    Names in it have a structure that tables follow: FIGURE, FIGURE/PART, FIGURE/step-NUMBER and FIGURE/GROUP/PART.
    """

    higher_is_better: bool

    def update(self, *args: Any, **kwargs: Any) -> None: ...

    def compute(self) -> Any: ...

    def reset(self) -> None: ...


class Adapter(Protocol):
    """Decide which weights are learned: return the model, changed in place or wrapped."""

    def __call__(self, model: nn.Module) -> nn.Module: ...


@runtime_checkable
class PartialWeights(Protocol):
    """Be an adapter whose learned weights are stored by themselves, apart from the model that it was put on.

    Every checkpoint then holds them in place of the whole model, which the run directory holds once, as it was before
    the adapter: see trainkit.base. All that learns has to be among them.

    Attributes:
        weights_file: the name of their file in a checkpoint, as 'adapter_model.safetensors'.
    """

    weights_file: str

    def weights(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return the weights of an adapted model under the names of the file; what is written into them is loaded."""
        ...


@runtime_checkable
class Starts(Protocol):
    """Be an adapter with an option `start`, which names what another run left, to begin with.

    It is read when a new run is composed. What the run has to know of it stands among its settings and in its
    checkpoints: whenever its model is loaded again, `start` is None.
    """

    def settled(self) -> Mapping[str, Any]:
        """Return the options that followed from what `start` names, by name; none where nothing is named."""
        ...


@runtime_checkable
class Merges(Protocol):
    """Be an adapter that can be worked into the weights of the model."""

    def merged(self, model: nn.Module) -> nn.Module:
        """Return an adapted model as it was built, with what the adapter learned in its weights.

        It may be the same object: what is given is not used any more.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """Keep state over a run. The answer may nest dicts, lists, tuples, numbers, strings and tensors."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> Any: ...


@runtime_checkable
class Summarises(Protocol):
    """Be a component that adds to the summary of a run."""

    def summary(self) -> Mapping[str, Any]:
        """Return what it came to, as JSON."""
        ...


def reading(target: Callable[..., Any], *names: str) -> type[Any]:
    """Return a subclass of `target` that reads these names, in the order of its own parameters.

    For a foreign class whose parameters are named otherwise: `reading(torch.nn.CrossEntropyLoss, "logits", "labels")`.
    """
    assert isinstance(target, type)
    return type(target.__name__, (target,), {"reads": names, "__module__": target.__module__})
