"""Predictors that know nothing of a sample, and by which every metric is to be judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .tree import NAMELESS, Node, node, walk


@dataclass(frozen=True)
class Baselines:
    """Hold what most training layouts have.

    Args:
        key: the most frequent base.
        usual: the multiset of bases that most layouts agree on.
    """

    key: str = ""
    usual: Sequence[str] = field(default_factory=list)

    @classmethod
    def learned(cls, layouts: Sequence[Node]) -> Baselines:
        """Learn from the training layouts."""
        found = [[base_of(part) for part in walk(layout) if part["key"] != NAMELESS] for layout in layouts]
        counts = Counter(key for keys in found for key in keys)
        return cls(min(counts, key=lambda key: (-counts[key], key), default=""), usual(found))

    def predictors(self) -> Mapping[str, Callable[[Node], Node]]:
        """Return for each baseline how it answers to a true tree, of which it may know no more than its shape.

        all-pad: nothing. majority: the most frequent base at every real node (of the true shape, as token accuracy asks
        for a guess at every real position). usual: the bases that most layouts have, under one root.
        """
        return {
            "all-pad": lambda tree: node(NAMELESS),
            "majority": self._everywhere,
            "usual": lambda tree: node(NAMELESS, [node(key) for key in self.usual]),
        }

    def _everywhere(self, tree: Node) -> Node:
        key = NAMELESS if tree["key"] == NAMELESS else self.key
        return node(key, [self._everywhere(child) for child in tree["children"]])

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON."""
        return asdict(self)


def base_of(part: Node) -> str:
    """Return the base of a node's key."""
    return str(part["key"]).partition("@")[0].partition("$")[0]


def usual(found: Sequence[Sequence[str]]) -> list[str]:
    """Return the multiset that most samples agree on: the k-th copy of an element that more than half of them have.

    Where they agree on nothing, the element that most of them have stands alone: a baseline that predicts nothing is no
    majority.
    """
    copies = Counter((item, copy) for each in found for item, count in Counter(each).items() for copy in range(count))
    agreed = sorted(item for (item, _), samples in copies.items() if 2 * samples > len(found))
    most_common = min(copies, key=lambda item: (-copies[item], item), default=None)
    return agreed or ([most_common[0]] if most_common else [])
