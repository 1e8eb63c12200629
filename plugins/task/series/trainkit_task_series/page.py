"""The page of an answer: a chart of every target, and what the model looked at, in one file without scripts."""

from __future__ import annotations

from collections.abc import Sequence

from trainkit.contracts import Panel
from trainkit.reporting.answerpage import image
from trainkit.reporting.chart import chart
from trainkit.reporting.reportpage import STYLE, text

from .pictures import Course, curves_of


def page_of(course: Course, panels: Sequence[Panel] = ()) -> str:
    """Return the page of a window, without links to elsewhere.

    Args:
        course: what is drawn as charts.
        panels: further pictures and texts, below.
    """
    charts = []
    for place, name in enumerate(course.targets):
        curves = curves_of(course, place)
        body = chart(curves.series, curves.x_label, may_be_log=False, bands=curves.bands, x_labels=curves.x_labels)
        charts.append(f"<figure><h3>{text(name)}</h3>{body or '<p>nothing was measured</p>'}</figure>")
    charts += [f"<figure><h3>{text(panel.title)}</h3>{_content(panel)}</figure>" for panel in panels]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{text(course.name)}</title><style>{STYLE}</style></head><body><main>"
        f'<header><h1>{text(course.name)}</h1><p class="soft">{text(curves_of(course, 0).x_label)}</p></header>'
        f'<section><div class="charts">{"".join(charts)}</div></section></main></body></html>\n'
    )


def _content(panel: Panel) -> str:
    return f"<pre>{text(panel.content)}</pre>" if isinstance(panel.content, str) else image(panel.content, panel.title)
