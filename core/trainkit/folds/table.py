"""The table of a cross-validation: every figure of validation with its mean, its spread, and its value by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.resulttable import MODEL, Table, label_of, measured, overall_names

VAL = "val"
WHOLE = "Validation: the mean of the folds, each by a model that has not seen its samples; test: the final model"
INTERVAL = "Folds share training samples, so the interval of the mean, by Student's t, is somewhat too narrow."


def fold_table(summary: Mapping[str, Any], *, details: bool = True) -> Table:
    """Return the table of the folds that are done; one without rows where there are none.

    Args:
        summary: what a cross-validation came to, as in its results.json.
        details: have rows of what is one of several levels, as q-risk-0.1 beside q-risk.
    """
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]] = summary.get("figures", {})
    means = {who: {tag: each["mean"] for tag, each in tags.items() if _is_val(tag)} for who, tags in figures.items()}
    model = figures.get(MODEL, {})
    names = [name for name in overall_names(means, details=details) if f"{VAL}/{name}" in model]
    baselines = [who for who in sorted(means) if who != MODEL and means[who]]
    folds = [row["fold"].partition("/")[0] for row in _folds(summary)]
    groups = (
        ("", ("mean", "sd", "95 % from", "to")),
        ("fold", tuple(folds)),
        *((who, ("mean",)) for who in baselines),
    )
    rows = []
    for name in names:
        each = model[f"{VAL}/{name}"]
        cells = [*(each[part] for part in ("mean", "sd", "low", "high")), *each["values"]]
        cells += [means[who].get(f"{VAL}/{name}") for who in baselines]
        rows.append((label_of(name, means), tuple(map(measured, cells))))
    main = str(summary.get("monitor", "")).partition("/")[2]
    return Table("", groups if rows else (), tuple(rows), main=label_of(main, means) if main in names else "")


def run_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the runs that are done: samples, steps, best step, best value, where each is."""
    head = ["", "training", "validation", "steps", "best step", f"best {summary.get('monitor', '')}", "directory"]
    body = [
        [
            "final" if row["fold"] == "all" else f"fold {row['fold']}",
            str(row["samples"].get("train", "")),
            str(row["samples"].get(VAL, "")),
            str(row["steps"]),
            str(row["best_step"]) if row["best"] is not None else "",
            measured(row["best"]),
            str(row["directory"]),
        ]
        for row in summary.get("runs", ())
    ]
    return head, body


def in_words(summary: Mapping[str, Any]) -> str:
    """Return the monitored value over folds in a sentence; '' where there is none."""
    found, done = summary.get("best_of_folds"), len(_folds(summary))
    if not found:
        return ""
    text = f"{summary.get('monitor', '')} {measured(found['mean'])}, mean of the best of {done} folds"
    if done > 1:
        text += f", sd {measured(found['sd'])}, 95 % interval {measured(found['low'])} to {measured(found['high'])}"
    return text


def _folds(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [row for row in summary.get("runs", ()) if row["fold"] != "all"]


def _is_val(tag: str) -> bool:
    return tag.startswith(f"{VAL}/")
