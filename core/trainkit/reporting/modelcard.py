"""The model card: README.md of a run directory, with what Hugging Face's front matter needs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainkit.errors import printable
from trainkit.folds.table import INTERVAL, WHOLE, fold_table, in_words, run_table
from trainkit.report import (
    Facts,
    component_rows,
    counted,
    duration,
    number,
    readable,
    stage_table,
    value_text,
)
from trainkit.resulttable import PART, by_part, last_split, overall

MODEL_FILE = "model.safetensors"
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def model_card(facts: Facts) -> str:
    """Return the model card of a run as Markdown: what it is, data, results, how to use it, what it was made with."""
    sections = [
        _front(facts),
        f"# {text(facts.name)}",
        _what(facts),
        "## Results\n\n" + (_results(facts) or "There are no final results yet."),
        _folds(facts),
        "## Data\n\n" + _data(facts),
        "## Training\n\n" + _training(facts),
        "## Use\n\n" + _use(facts),
        "## Made with\n\n" + _made_with(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def text(value: object) -> str:
    """Return data as Markdown text: no markup, no line breaks, no control characters."""
    return _MARKUP.sub(r"\\\1", " ".join(printable(str(value)).split()))


def _front(facts: Facts) -> str:
    tags = ["trainkit", *(_slug(c.get("name", "")) for c in facts.components if c.get("kind") == "task")]
    return "---\nlibrary_name: trainkit\ntags:\n" + "\n".join(f"- {tag}" for tag in tags if tag) + "\n---"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")


def _what(facts: Facts) -> str:
    summary = facts.summary
    task = next((c["name"] for c in facts.components if c.get("kind") == "task"), "")
    strategy = summary.get("strategy", "")
    lines = [f"A model for the task {text(task)}, trained with the strategy {text(strategy)}." if task else ""]
    if summary:
        lines.append(
            f"{counted(summary.get('steps'), 'optimizer step')}, {counted(summary.get('epochs'), 'epoch')}, "
            f"{duration(summary.get('seconds'))}; status: {text(summary.get('status', 'unknown'))}."
        )
        if summary.get("stop_reason"):
            lines.append(f"It ended early: {text(summary['stop_reason'])}.")
        if facts.is_cross_validation:
            lines.append(text(f"{WHOLE}."))
        elif summary.get("best_step") is not None and summary.get("best") is not None:
            monitor = text(summary.get("monitor", ""))
            lines.append(f"Best checkpoint: step {summary['best_step']}, {monitor} {number(summary['best'])}.")
            others = [f"step {e['step']} ({number(e['value'])})" for e in summary.get("best_checkpoints", [])[1:]]
            if others:
                lines.append(f"Kept beside it, the best first: {', '.join(others)}.")
    return "\n".join(line for line in lines if line)


def _results(facts: Facts) -> str:
    table = overall(facts.results, details=False)
    parts = [part for part in by_part(facts.results, last_split(facts.results)) if part.group == PART]
    tables = [_table(table.head(), table.body()), *(f"{text(p.title)}:\n\n{_table(p.head(), p.body())}" for p in parts)]
    return "\n\n".join(found for found in tables if found)


def _folds(facts: Facts) -> str:
    if not facts.is_cross_validation:
        return ""
    table = fold_table(facts.summary, details=False)
    words = f"{text(in_words(facts.summary))}. {INTERVAL}"
    runs = _table(*run_table(facts.summary))
    found = _table(table.head(), table.body())
    return "\n\n".join(part for part in ("## Folds", words, found, runs) if part)


def _data(facts: Facts) -> str:
    data = facts.data()
    samples = ", ".join(f"{count} {text(split)}" for split, count in data.get("samples", {}).items())
    lines = [f"- Source: {text(readable(str(data.get('source', ''))))}", f"- Samples: {samples}"]
    if data.get("fingerprint"):
        lines.append(f"- Fingerprint: `{_slug(str(data['fingerprint']))}`")
    lines += [f"- Note: {text(note)}" for note in facts.notes()]
    return "\n".join(lines)


def _training(facts: Facts) -> str:
    table = _table(*stage_table(facts.stages()))
    chosen = [key for key, (_, origin, _) in facts.config.items() if origin != "default"]
    settings = "\n".join(
        f"- {text(key)} = {text(value_text(facts.config[key][0]))} ({text(facts.config[key][1])})" for key in chosen
    )
    parts = [table, settings and f"Settings other than the defaults:\n\n{settings}", "Curves: report.html."]
    return "\n\n".join(part for part in parts if part)


def _use(facts: Facts) -> str:
    out = facts.config.get("out", (None, "", ""))[0]
    # Where the run was made; what is no plain path may not become a command.
    run = out if isinstance(out, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", out) else ""
    run = run or f"runs/{_shell(facts.name)}"
    place = "final/" if facts.is_cross_validation else ""
    file = _shell(str(facts.summary.get("weights_file", MODEL_FILE)))
    base = "" if file == MODEL_FILE else f" and those of the model that they change `{place}base/{MODEL_FILE}`"
    return (
        f"```bash\ntrainkit evaluate {run} --split test   # measure the best checkpoint again\n"
        f"trainkit predict {run} INPUT...        # answer new inputs with it\n"
        f"trainkit run --resume {run}            # go on from the newest checkpoint\n```\n\n"
        f"The weights are `{place}checkpoints/checkpoint-*/{file}`{base}; "
        f"`{place}checkpoints/best.json` names the best. They hold no code."
    )


def _shell(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "?", name)


def _made_with(facts: Facts) -> str:
    head = ["kind", "component", "distribution", "version"]
    components = _table(head, component_rows(facts.components))
    known = facts.environment
    machine = ", ".join(
        f"{key} {text(known[key])}"
        for key in ("python", "torch", "cuda", "system", "machine", "cores")
        if known.get(key)
    )
    return "\n\n".join(part for part in (components, machine and f"Environment: {machine}.") if part)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if not body:
        return ""
    lines = ["| " + " | ".join(text(cell) for cell in row) + " |" for row in (head, *body)]
    rule = "| --- |" + " ---: |" * (len(head) - 1) if head[0] == "" else "|" + " --- |" * len(head)
    return "\n".join([lines[0], rule, *lines[1:]])
