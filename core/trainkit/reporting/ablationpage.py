"""The report of an ablation: README.md as Markdown, report.html as a page without scripts or links to elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.ablation.contribution import JUDGED, detail, matrix, sentence
from trainkit.ablation.report import RUN_FIGURES, notes, read_figures, run_rows
from trainkit.report import counted, readable
from trainkit.resulttable import measured

from . import modelcard, reportpage

WHAT = (
    "The same run without one of its parts at a time. A cell says what the part contributes: the figure of the full "
    "run minus that of the run without the part, the mean of pairs with the same seed, ± half of its 95 % interval by "
    "Student's t; a star marks an interval that excludes 0, an arrow where a figure is better."
)
RUN_HEAD = ["without", "seeds", *RUN_FIGURES]

Rows = Sequence[Sequence[str]]
Section = tuple[str, Sequence[str], Rows]


def card(name: str, document: Mapping[str, Any]) -> str:
    """Return the report of an ablation as Markdown."""
    text = modelcard.text
    lines = [f"# {text(name)}", text(f"{_of(document)}. {WHAT}")]
    if said := _sentences(document):
        lines.append("\n".join(f"- {text(each)}" for each in said))
    for title, head, rows in _sections(document):
        cells = ["| " + " | ".join(text(cell) for cell in row) + " |" for row in (head, *rows)]
        rule = "| --- |" + " ---: |" * (len(head) - 1)
        lines += [f"## {text(title)}", "\n".join([cells[0], rule, *cells[1:]])]
    lines += ["## Notes", "\n".join(f"- {text(note)}" for note in _all_notes(document))]
    return "\n\n".join(lines) + "\n"


def page(name: str, document: Mapping[str, Any]) -> str:
    """Return the report of an ablation as a self-contained HTML page."""
    text = reportpage.text
    said = "".join(f"<li>{text(each)}</li>" for each in _sentences(document))
    body = [
        f'<header><h1>{text(name)}</h1><p class="soft">{text(_of(document))}</p><p>{text(WHAT)}</p></header>',
        f"<ul>{said}</ul>" if said else "",
        *(
            f"<section><h2>{text(title)}</h2>{_table(head, rows)}</section>"
            for title, head, rows in _sections(document)
        ),
        "<section><h2>Notes</h2>",
        *(f'<p class="note">{text(note)}</p>' for note in _all_notes(document)),
        "</section>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(name)}</title><style>{reportpage.STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _of(document: Mapping[str, Any]) -> str:
    seeds = document["seeds"]
    return (
        f"Ablation of {readable(document['run'])}: {counted(len(document['parts']), 'part')}, "
        f"{counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"
    )


def _sentences(document: Mapping[str, Any]) -> list[str]:
    _, found = read_figures(document)
    return [said for each in found if (said := sentence(each))]


def _all_notes(document: Mapping[str, Any]) -> list[str]:
    return [*notes(document), *(f"{label} stays: {reason}" for label, reason in document["kept"].items())]


def _sections(document: Mapping[str, Any]) -> list[Section]:
    full, found = read_figures(document)
    nulls = {each["part"]: each["in_its_place"] for each in document["parts"]}
    sections: list[Section] = [
        (f"Contributions, {split}", *matrix(full, found, split, document["directions"]))
        for split in JUDGED
        if any(tag.startswith(f"{split}/") for tag in full)
    ]
    rows = [[str(label), str(seeds), *map(measured, means)] for label, seeds, *means in run_rows(document)]
    sections.append(("Runs, means over seeds", RUN_HEAD, rows))
    sections += [
        (tag, *detail(figure, [each for each in found if each.tag == tag], nulls)) for tag, figure in full.items()
    ]
    return sections


def _table(head: Sequence[str], rows: Rows) -> str:
    text = reportpage.text
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )
