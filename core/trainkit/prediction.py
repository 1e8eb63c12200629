"""New inputs through a trained model: answers to files, and a page to look at."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answering import answers_of, evaluated, streamed_answer
from .blame import told
from .conformity import asked
from .contracts import Answer, Answers, Dataset, Streams
from .errors import DataError, UsageError, listed, printable
from .modelpath import model_path
from .prompts import Given, check_inputs, dataset_of
from .reporting.answerfiles import AnswerFiles, empty_folder, numbered_folder, write_new
from .reporting.answerpage import AnswerPage
from .rundir import RunDirectory
from .tasks import lacking
from .trained import Trained, load_trained

if TYPE_CHECKING:
    from .config import Layer
    from .request import Reporter, Request

PAGE, FOLDER = "index.html", "predictions"


@dataclass(frozen=True)
class Prediction:
    """Hold what became of one input.

    Args:
        name: of the input.
        files: what was written for it.
        data: the answer as JSON.
        text: the answer as people read it, where it is a text.
    """

    name: str
    files: tuple[Path, ...]
    data: Any
    text: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"name": self.name, "files": [str(path) for path in self.files], "data": self.data}


@dataclass(frozen=True)
class Predictions:
    """Hold what became of all inputs.

    Args:
        directory: where the files are.
        step: the optimizer step of the checkpoint that answered.
        items: for each input what became of it, in order.
        page: the page with inputs and answers side by side, or None.
    """

    directory: Path
    step: int
    items: tuple[Prediction, ...]
    page: Path | None

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {
            "directory": str(self.directory),
            "step": self.step,
            "page": str(self.page) if self.page is not None else None,
            "answers": [item.document() for item in self.items],
        }


@dataclass(frozen=True)
class Asked:
    """Hold how inputs are to be answered; the arguments are those of `trainkit.predict`."""

    batch_size: int | None = None
    seed: int = 0
    checkpoint: str = "best"
    device: str | None = None
    page: bool = False


def _unheard(item: Prediction) -> None:
    """Tell nobody."""
    del item


def predictions(
    path: Path,
    inputs: Sequence[Given],
    out: str | Path | None,
    layers: Sequence[Layer],
    how: Asked,
    request: Request,
    heard: Callable[[Prediction], None] = _unheard,
    pieces: Callable[[str], None] | None = None,
) -> Predictions:
    """Answer new inputs and write the answers, each as soon as it is there.

    Args:
        path: the run directory.
        inputs: files or folders that the task can read; a text that is none is a prompt, '-' standard input.
        out: where the files go; a new folder under the run's predictions/ if None.
        layers: options of the task that may change after training.
        how: the rest of the question.
        request: registry, live objects, listeners, reporter.
        heard: told of each answer when it is written.
        pieces: told of a text while it grows, where one input is to be answered and the task can tell.
    """
    _check(inputs, how)
    directory = RunDirectory.read(model_path(path))
    trained = load_trained(directory, Answers, layers, how.checkpoint, how.device, request)
    dataset = _read(trained, inputs, request.report)
    settings = trained.run.settings
    size = how.batch_size or settings.evaluate.batch_size or settings.loop.batch_size
    files = AnswerFiles(numbered_folder(path / FOLDER) if out is None else empty_folder(Path(out).expanduser()))
    step = trained.checkpoint.step
    page = AnswerPage(path.resolve().name, f"task {trained.name} · checkpoint of step {step} · seed {how.seed}")
    items = []
    with told(trained.run), evaluated(trained.run, "inputs"):
        if pieces is not None and len(dataset) == 1 and not lacking(trained.task, Streams):
            answers = _followed(streamed_answer(trained.run, trained.task, dataset, how.seed), pieces)
        else:
            answers = answers_of(trained.run, trained.task, dataset, range(len(dataset)), size, how.seed)
        for answer in answers:
            items.append(Prediction(printable(answer.name), files.write(answer), answer.data, answer.text))
            heard(items[-1])
            if how.page:
                page.add(answer)
    written = write_new(files.folder / PAGE, page.html()) if how.page else None
    return Predictions(files.folder, step, tuple(items), written)


def _followed(stream: Generator[str, None, Answer], pieces: Callable[[str], None]) -> Iterator[Answer]:
    """Tell of the pieces of an answer as they come, then yield it."""
    while True:
        try:
            pieces(next(stream))
        except StopIteration as end:
            yield end.value
            return


def _check(inputs: Sequence[Given], how: Asked) -> None:
    if how.batch_size is not None and how.batch_size < 1:
        raise UsageError(f"a batch size of {how.batch_size}: at least 1 is needed")
    check_inputs(inputs)


def _read(trained: Trained, inputs: Sequence[Given], report: Reporter) -> Dataset:
    with asked(f"task {trained.name}", "read its inputs"):
        dataset = dataset_of(trained.task, trained.name, inputs, report)
    if len(dataset) == 0:
        raise DataError("there is nothing to answer", where=listed(inputs), do="name files that the task can read")
    for warning in getattr(dataset, "warnings", ()):
        report(f"warning: {warning}")
    return dataset
