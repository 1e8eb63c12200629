"""report.html: one page without scripts or links to elsewhere; everything that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trainkit.errors import printable
from trainkit.folds.table import INTERVAL, WHOLE, fold_table, in_words, run_table
from trainkit.report import Facts, component_rows, duration, forecast_text, number, readable, stage_table, value_text
from trainkit.resulttable import SPLITS, Table, by_part, overall

from .chart import chart
from .runcharts import chart_series
from .runpictures import figures
from .runtexts import text_figures

MAX_CHARTS = 12

STYLE = """
:root { color-scheme: light dark; --ink: #1c2230; --soft: #5d6679; --paper: #fbfbfd; --card: #fff; --rule: #e3e6ee;
  --c0: #2563eb; --c1: #d9480f; --c2: #0f8a5f; --c3: #9333ea; --c4: #b7791f; --c5: #64748b; --mark: #eef4ff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf1; --soft: #9aa4b8; --paper: #14171e; --card: #1c212b;
  --rule: #2d3442; --c0: #7aa7ff; --c1: #ff9466; --c2: #53cf9f; --c3: #c792ff; --c4: #e6bd5c; --c5: #a3b0c4;
  --mark: #22304a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; } p { margin: 0 0 8px; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.tile, figure, .scroll, .note { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile { padding: 12px 14px; } .tile b { display: block; font-size: 20px; font-weight: 600; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; padding: 14px 14px 8px; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 11px; } .grid { stroke: var(--rule); } .axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.c5 { --c: var(--c5); } .line { stroke: var(--c); } .dot { fill: var(--c); } .key { background: var(--c); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 4px 0 0; padding: 0; }
.legend { font-size: 13px; }
.key { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 7px 14px; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { font-size: 13px; color: var(--soft); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: anywhere; } .numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right; }
polygon.band { fill: var(--c); opacity: 0.16; } .key.band { height: 12px; opacity: 0.3; }
.line.dashed { stroke-dasharray: 5 4; }
.key.dashed { background: repeating-linear-gradient(90deg, var(--c) 0 4px, transparent 4px 7px); }
tr.best { background: var(--mark); } td.below { padding-left: 30px; color: var(--soft); }
details { margin-top: 10px; } summary { cursor: pointer; padding: 4px 0; }
.note { padding: 10px 14px; margin-bottom: 8px; border-left: 4px solid var(--c4); }
section > figure + figure { margin-top: 12px; } figure img { max-width: 100%; display: block; }
figure pre { margin: 0; max-height: 60vh; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { .tile, figure, .scroll { break-inside: avoid; } }
"""


def page(facts: Facts) -> str:
    """Return the report of a run as a self-contained HTML page."""
    title = text(facts.name)
    sections = [
        f"<header><h1>{title}</h1>{_subtitle(facts)}</header>",
        _tiles(facts),
        _notes(facts),
        _section("Results", _results(facts)),
        _section("Folds", _folds(facts)),
        _section("Curves", _curves(facts.rows)),
        _section("Pictures", figures(facts.pictures)),
        _section("Answers", text_figures(facts.texts)),
        _section("Plan", _plan(facts)),
        _section("Settings", _settings(facts.config)),
        _section("Components", _components(facts.components)),
        _section("Environment", _environment(facts.environment)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def text(value: object) -> str:
    """Return data as HTML text."""
    return escape(printable(str(value)))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _subtitle(facts: Facts) -> str:
    by_kind = {c.get("kind"): c.get("name", "") for c in facts.components if "inside" not in c}
    parts = [
        f"{kind} {by_kind[kind]}" for kind in ("task", "strategy", "loss", "optimizer", "scheduler") if kind in by_kind
    ]
    return f'<p class="soft">{text(" · ".join(parts))}</p>' if parts else ""


def _tiles(facts: Facts) -> str:
    summary, data = facts.summary, facts.data()
    samples = " / ".join(str(count) for count in data.get("samples", {}).values())
    tiles = [
        ("status", summary.get("status")),
        (_best_label(facts), number(summary.get("best"))),
        ("optimizer steps", number(summary.get("steps"))),
        ("epochs", number(summary.get("epochs"))),
        (f"training time{forecast_text(summary)}", duration(summary.get("seconds"))),
        (f"samples: {' / '.join(data.get('samples', {}))}", samples),
    ]
    cells = "".join(
        f'<div class="tile"><b>{text(value)}</b><span>{text(label)}</span></div>'
        for label, value in tiles
        if value not in (None, "")
    )
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _best_label(facts: Facts) -> str:
    monitor = facts.summary.get("monitor", "")
    if facts.is_cross_validation:
        return f"best {monitor}, mean of the folds"
    return f"best {monitor}, step {facts.summary.get('best_step')}"


def _notes(facts: Facts) -> str:
    return _section("Notes", "".join(f'<p class="note">{text(note)}</p>' for note in facts.notes()))


def _results(facts: Facts) -> str:
    table = overall(facts.results, str(facts.summary.get("monitor", "")))
    if not table.rows:
        return ""
    looked_at = "The best checkpoint on every split"
    if facts.is_cross_validation:
        looked_at = WHOLE
    note = f'<p class="soft">{text(looked_at)}, beside predictors that have learned nothing.</p>'
    parts = [part for split in SPLITS for part in by_part(facts.results, split)]
    return (note if len(facts.results) > 1 else "") + _result_table(table) + "".join(map(_part, parts))


def _folds(facts: Facts) -> str:
    if not facts.is_cross_validation:
        return ""
    table = fold_table(facts.summary)
    note = f'<p class="soft">{text(in_words(facts.summary))}. {text(INTERVAL)}</p>'
    drawing = chart(facts.fold_curves) if max(map(len, facts.fold_curves.values()), default=0) > 1 else ""
    monitor = text(facts.summary.get("monitor", ""))
    figure = f'<div class="charts"><figure><h3>{monitor} by fold</h3>{drawing}</figure></div>' if drawing else ""
    return note + (_result_table(table) if table.rows else "") + figure + _table(*run_table(facts.summary))


def _part(table: Table) -> str:
    return f"<details><summary>{text(table.title)}</summary>{_result_table(table)}</details>"


def _result_table(table: Table) -> str:
    """Return a table of results; what belongs to the row above is indented, a head that columns share spans them."""
    top = "".join(f'<th colspan="{len(names)}">{text(head)}</th>' for head, names in table.groups)
    shared = f"<tr><th></th>{top}</tr>" if any(head for head, _ in table.groups) else ""
    heads = "".join(f"<th>{text(name)}</th>" for _, names in table.groups for name in names)
    lines = []
    for label, cells in table.rows:
        mark = ' class="best"' if label == table.main else ""
        indent = ' class="below"' if label.startswith(" ") else ""
        numbers = "".join(f"<td>{text(cell)}</td>" for cell in cells)
        lines.append(f"<tr{mark}><td{indent}>{text(label.strip())}</td>{numbers}</tr>")
    head = f"<thead>{shared}<tr><th></th>{heads}</tr></thead>"
    return f'<div class="scroll"><table class="numbers">{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    charts = []
    for title, series in chart_series(rows):
        drawing = chart(series, may_be_log=title != "learning rate") if max(map(len, series.values())) > 1 else ""
        if drawing:
            charts.append(f"<figure><h3>{text(title)}</h3>{drawing}</figure>")
    return f'<div class="charts">{"".join(charts[:MAX_CHARTS])}</div>' if charts else ""


def _plan(facts: Facts) -> str:
    source = facts.data().get("source")
    note = f'<p class="soft">Data: {text(readable(str(source)))}</p>' if source else ""
    head, body = stage_table(facts.stages())
    return note + _table(head, body) if body else note


def _settings(config: Mapping[str, tuple[Any, str, str]]) -> str:
    body = [
        [key, value_text(value), f"{origin}: {reason}" if reason else origin]
        for key, (value, origin, reason) in config.items()
    ]
    return _table(["setting", "value", "from"], body)


def _components(components: Sequence[Mapping[str, str]]) -> str:
    return _table(["kind", "component", "distribution", "version"], component_rows(components))


def _environment(known: Mapping[str, Any]) -> str:
    body = []
    for key, value in known.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {content}" for name, content in value.items())
        if value not in (None, "", []):
            body.append([key, value_text(value)])
    return _table(["", ""], body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if not body:
        return ""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head) if any(head) else ""
    lines = ["<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in body]
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'
