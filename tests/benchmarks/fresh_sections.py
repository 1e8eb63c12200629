"""How well a run on the embedded sample does on 100 sections that neither it nor its test split has seen.

    python tests/benchmarks/fresh_sections.py RUN...

Ten test sections say little; these come from the same generator under another seed. Layouts are generated as
`trainkit predict` generates them, and compared as multisets of bases and of keys, beside the most frequent base at
every real node. `make bench` does not call it: it wants a run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainkit_task_layout.sections import write_sections
from trainkit_task_layout.tree import Node, parse_layout, walk

COUNT, SEED = 100, 3
COMMAND = [sys.executable, "-c", "from trainkit_cli.main import main; main()", "predict"]


def bases(layout: Node) -> Iterator[str]:
    return (part["key"].split("@")[0].split("$")[0] for part in walk(layout))


def keys(layout: Node) -> Iterator[str]:
    return (part["key"] for part in walk(layout))


def f1(pairs: list[tuple[Counter[str], Counter[str]]]) -> float:
    shared = sum((guess & truth).total() for guess, truth in pairs)
    return 2 * shared / sum(guess.total() + truth.total() for guess, truth in pairs)


def read(path: Path) -> Node:
    return parse_layout(path.read_text(encoding="utf-8"))[0]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "sections"
        write_sections(data, count=COUNT, seed=SEED)
        pages = sorted(data.glob("*/*"))
        truths = [read(page / "layout.json") for page in pages]
        usual, count = Counter(base for truth in truths for base in bases(truth)).most_common(1)[0]
        share = count / sum(1 for truth in truths for _ in bases(truth))
        print(f"{COUNT} sections; '{usual}' at every real node: base F1 {share:.3f}")
        for number, run in enumerate(sys.argv[1:]):
            out = Path(folder) / str(number)
            subprocess.run([*COMMAND, run, *map(str, pages), "--out", str(out), "--json"], check=True, stdout=-3)
            guesses = [read(out / f"{page.name}.json") for page in pages]
            pairs = list(zip(guesses, truths, strict=True))
            base, key = (f1([(Counter(of(a)), Counter(of(b))) for a, b in pairs]) for of in (bases, keys))
            right = sum(list(keys(a)) == list(keys(b)) for a, b in pairs) / COUNT
            print(f"{run}: base F1 {base:.3f} ({base / share:.1f} times that), key F1 {key:.3f}, all right {right:.0%}")


if __name__ == "__main__":
    main()
