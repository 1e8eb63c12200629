"""What a run leaves for people: report.html, with curves and tables, and README.md, the model card."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .resulttable import amount_of
from .rundir import METRICS, rows

if TYPE_CHECKING:
    from .rundir import RunDirectory

REPORT, CARD, SKIPPED = "report.html", "README.md", "skipped.jsonl"
ENVIRONMENT_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")

LIBRARIES = ("trainkit-core", "trainkit-cli", "numpy", "safetensors", "pluggy", "pydantic", "transformers", "peft")


@dataclass(frozen=True)
class Facts:
    """Hold what a report is made of, as plain values.

    Args:
        name: of the run.
        summary: status, steps, epochs, samples, seconds, monitor, best, best_step, stop_reason.
        results: for the model and each baseline the final values by tag, as results["model"]["test/loss"].
        config: dotted key -> (value, origin, reason).
        plan: strategy, stages with their lengths, notes, data; as plan.json.
        rows: the rows of metrics.jsonl.
        components: kind, name, distribution and version of each.
        environment: as `environment` returns it.
        pictures: (title, PNG) pairs: the plot of the learning-rate range test, then what was shown last.
        search: the record of that test.
        fold_curves: of a cross-validation the monitored value over steps, by fold.
    """

    name: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config: Mapping[str, tuple[Any, str, str]] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    components: Sequence[Mapping[str, str]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[tuple[str, bytes]] = ()
    texts: Sequence[tuple[str, str]] = ()
    search: Mapping[str, Any] = field(default_factory=dict)
    fold_curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def is_cross_validation(self) -> bool:
        """Return whether this is the report of several runs."""
        return "runs" in self.summary

    def stages(self) -> list[Mapping[str, Any]]:
        """Return the planned stages."""
        return list(self.plan.get("stages", ()))

    def data(self) -> Mapping[str, Any]:
        """Return source, fingerprint, samples and warnings of the data."""
        found: Mapping[str, Any] = self.plan.get("data", {})
        return found

    def notes(self) -> list[str]:
        """Return the plan's notes, the data's warnings, and what was left out: samples, and terms of the loss."""
        notes = [*self.plan.get("plan", {}).get("notes", ()), *self.data().get("warnings", ())]
        if skipped := self.data().get("skipped", 0):
            were = "was" if skipped == 1 else "were"
            notes.append(f"{counted(skipped, 'sample')} {were} left out on request: see {SKIPPED}")
        if self.search:
            reasons = self.search.get("reasons", {})
            why = reasons.get(self.search.get("rule"), "")
            notes += [f"no learning rate was found: {why}"] if why else self.search.get("notes", [])
        inactive = self.summary.get("inactive_terms", {})
        return [*notes, *(inactive_note(term, shares) for term, shares in inactive.items())]


def write_report(directory: RunDirectory) -> None:
    """Write report.html and README.md from the files of a run directory.

    Raises:
        CheckpointError: a file is damaged.
        ResourceError: the system refuses to write.
    """
    from .reporting.modelcard import model_card
    from .reporting.reportpage import page

    facts = read_facts(directory)
    directory.write_text(REPORT, page(facts))
    directory.write_text(CARD, model_card(facts))


def read_facts(directory: RunDirectory) -> Facts:
    """Return what the files of a run directory say; a file that is not there yet leaves its part empty."""
    from .reporting.runpictures import newest_pictures, range_test_picture
    from .reporting.runtexts import newest_texts

    def stored(name: str, otherwise: Any) -> Any:
        return directory.read_json(name) if (directory.path / name).exists() else otherwise

    summary = stored("results.json", {})
    history = stored("resolved.json", {})
    return Facts(
        name=directory.path.resolve().name,
        summary=summary,
        results=summary.get("results", {}),
        config={key: (v[-1]["value"], v[-1]["origin"], v[-1]["reason"]) for key, v in history.items() if v},
        plan=stored("plan.json", {}),
        rows=list(rows(directory.metrics_path)) if directory.metrics_path.exists() else [],
        components=stored("components.json", []),
        environment=stored("environment.json", {}),
        pictures=[*range_test_picture(directory.path), *newest_pictures(directory.path)],
        texts=newest_texts(directory.path),
        search=stored("lr_find.json", {}),
        fold_curves=_fold_curves(directory.path, summary),
    )


def _fold_curves(path: Path, summary: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Return the monitored value over steps of each fold that is done."""
    monitor, curves = summary.get("monitor", ""), {}
    for run in summary.get("runs", ()):
        there = path / run["directory"] / METRICS
        if run["fold"] != "all" and there.exists():
            curves[f"fold {run['fold']}"] = [(row["step"], row[monitor]) for row in rows(there) if monitor in row]
    return curves


def environment() -> dict[str, Any]:
    """Return what a run's result can depend on, by a list of what is allowed: no arguments, no paths, no secrets."""
    import torch

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "variables": {name: os.environ[name] for name in ENVIRONMENT_VARIABLES if name in os.environ},
    }
    return facts | {"distributions": _distributions()}


def _distributions() -> dict[str, str]:
    """Return the versions of what a result can depend on; those of the components are in components.json."""
    from importlib.metadata import version

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except Exception:  # noqa: S112 - not installed, or with metadata that is no run's business
            continue
    return found


def number(value: Any) -> str:
    """Return a measured value as tables show it: four significant digits."""
    amount = amount_of(value)
    if isinstance(amount, str):
        return amount
    if amount == int(amount) and abs(amount) < 1e6 and not isinstance(value, float):
        return str(int(amount))
    return f"{amount:.4g}"


def duration(seconds: Any) -> str:
    """Return seconds as people say them: 42 s, 3 min 20 s, 2 h 5 min."""
    try:
        total = round(float(seconds))
    except (TypeError, ValueError, OverflowError):
        return ""
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def forecast_text(summary: Mapping[str, Any]) -> str:
    """Return what was forecast of a run's time, as ', forecast 2 min 3 s (+4 %)'; '' where nothing was."""
    forecast = summary.get("forecast")
    if not forecast:
        return ""
    error = f" ({100 * forecast['error']:+.0f} %)" if forecast.get("error") is not None else ""
    return f", forecast {duration(forecast['seconds'])}{error}"


def stage_table(stages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the plan: what each stage learns from, for how long, and with which weights."""
    head = ["stage", "samples", "epochs", "steps", "learning rate", "trained weights", "selection"]
    table = []
    for stage in stages:
        length = stage.get("length", {})
        lr_factor = stage.get("lr_factor", 1.0)
        table.append(
            [
                str(stage.get("name", "")),
                number(length.get("samples")),
                number(length.get("epochs")),
                number(length.get("steps")),
                "as scheduled" if lr_factor == 1 else f"x {number(lr_factor)}",
                "all" if list(stage.get("trainable", ["*"])) == ["*"] else ", ".join(stage["trainable"]),
                _selection(stage.get("selection", {})),
            ]
        )
    return head, table


def _selection(selection: Mapping[str, Any]) -> str:
    parts = []
    if selection.get("easiest", 1) != 1:
        parts.append(f"easiest {100 * selection['easiest']:g} %")
    if selection.get("min_quality") is not None:
        parts.append(f"quality at least {selection['min_quality']:g}")
    if selection.get("fraction", 1) != 1:
        parts.append(f"{100 * selection['fraction']:g} % drawn each epoch")
    return ", ".join(parts) or "all"


def counted(count: Any, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one."""
    return f"{number(count)} {noun}" + ("" if count == 1 else "s")


def inactive_note(term: str, shares: Mapping[str, float]) -> str:
    """Return what to say of a term of the loss that lacked its inputs in these shares of the batches, by split."""
    parts = [
        f"in all batches of {split}" if share == 1 else f"in {number(100 * share)} % of the batches of {split}"
        for split, share in shares.items()
    ]
    return f"the loss's term '{term}' was left out {', '.join(parts)}: what it reads is missing there"


def component_rows(components: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Return kind, name, distribution and version of each component; of one inside another its key for the kind."""
    return [
        [c.get("inside") or c.get("kind", ""), *(c.get(key, "") for key in ("name", "distribution", "version"))]
        for c in components
    ]


def value_text(value: Any) -> str:
    """Return a setting's value as people write it."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else readable(str(value))


def readable(path: str) -> str:
    """Return a text that may be a path without the user's home folder."""
    try:
        home = str(Path.home())
    except RuntimeError:
        return path
    return path.replace(home, "~") if len(home) > 1 else path
