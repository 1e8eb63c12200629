"""A page of answers: input, truth and answer side by side, in one file without scripts or links to elsewhere."""

from __future__ import annotations

from base64 import b64encode

from trainkit.contracts import Answer, Panel

from .contactsheet import is_plot, png
from .reportpage import STYLE, text

MOST_SHOWN = 200
SMALL = 160

LAYOUT = """
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); gap: 16px; }
.panels.plots { grid-template-columns: repeat(auto-fit, minmax(min(520px, 100%), 1fr)); }
figure.panel { padding: 12px 14px 14px; min-width: 0; }
figure.panel img { display: block; max-width: 100%; max-height: 78vh; margin: auto; border: 1px solid var(--rule); }
figure.panel img.small { width: 100%; max-width: 480px; image-rendering: pixelated; }
figure.panel pre { margin: 0; max-height: 78vh; overflow: auto; font: 13px/1.45 ui-monospace, monospace; }
"""


class AnswerPage:
    """Gather answers and return their page.

    Args:
        title: its heading.
        subtitle: what is said below, as the checkpoint.
    """

    def __init__(self, title: str, subtitle: str) -> None:
        self.title, self.subtitle = title, subtitle
        self._count = 0
        self._sections: list[str] = []

    def add(self, answer: Answer) -> None:
        """Take an answer; beyond the first 200 answers are counted only."""
        self._count += 1
        if self._count <= MOST_SHOWN:
            panels = "".join(map(_figure, answer.panels)) or '<p class="soft">nothing to look at</p>'
            look = "panels plots" if any(map(is_plot, answer.panels)) else "panels"
            self._sections.append(f'<section><h2>{text(answer.name)}</h2><div class="{look}">{panels}</div></section>')

    def html(self) -> str:
        """Return the page; pictures stand in it, so that it can be moved or sent as it is."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
            f"<title>{text(self.title)}</title><style>{STYLE}{LAYOUT}</style></head><body><main>"
            f'<header><h1>{text(self.title)}</h1><p class="soft">{text(self.subtitle)} · {self._counted()}</p></header>'
            f"{''.join(self._sections)}</main></body></html>\n"
        )

    def _counted(self) -> str:
        if self._count > MOST_SHOWN:
            return f"the first {MOST_SHOWN} of {self._count:,} answers; all of them are in the files beside this page"
        return f"{self._count} answer" + ("" if self._count == 1 else "s")


def _figure(panel: Panel) -> str:
    if isinstance(panel.content, str):
        body = f"<pre>{text(panel.content)}</pre>"
    else:
        body = image(panel.content, panel.title)
    return f'<figure class="panel"><h3>{text(panel.title)}</h3>{body}</figure>'


def image(picture: object, title: str) -> str:
    """Return a picture [H, W, 3] of bytes as an element that holds it."""
    import numpy as np

    pixels = np.asarray(picture)
    look = ' class="small"' if max(pixels.shape[:2]) <= SMALL else ""
    return f'<img{look} alt="{text(title)}" src="data:image/png;base64,{b64encode(png(pixels)).decode()}">'
