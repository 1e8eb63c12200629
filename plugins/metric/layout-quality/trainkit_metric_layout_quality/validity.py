"""Validity: whether a predicted layout keeps the grammar of 8.1, and whether its sources are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from .trees import Nodes

MOST_BRANCHES = 1000


def known_sources(layout: Nodes, structure: Nodes) -> tuple[int, int]:
    """Return how many sources of a layout are nodes of the structure, and how many it has; annotations do not count."""
    names = set(structure.keys)
    sources = [source for key in layout.parsed for source in key.sources]
    return sum(source in names for source in sources), len(sources)


def is_valid(layout: Nodes, structure: Nodes | None, bases: Collection[str], sourceless: Collection[str]) -> bool:
    """Say whether a layout keeps the rules of 8.1.

    There is at least one node; every key is base ('$' number)? ('@' source)*. With a structure, every node has a
    source, the sources of a key are parent and child, and no node of the structure is used twice; without one, the
    grammar of the keys is all that can be checked.

    Args:
        layout: the nodes of the layout.
        structure: the nodes of the structure, where there is one.
        bases: the bases that may occur; any, if empty.
        sourceless: bases that need no source.
    """
    if not layout.keys or not all(key.well_formed for key in layout.parsed):
        return False
    if bases and not all(key.base in bases for key in layout.parsed):
        return False
    if structure is None:
        return True
    if not all(key.sources or key.base in sourceless for key in layout.parsed):
        return False
    return have_room([key.sources for key in layout.parsed if key.sources], structure)


def have_room(chains: Sequence[tuple[str, ...]], structure: Nodes) -> bool:
    """Say whether each chain of names finds nodes of its own, each the parent of the next.

    Names may stand for several nodes, and which one is meant must not matter: a choice for all chains together is
    looked for as an integer programme. It is nearly always solved at once; a search of more than MOST_BRANCHES branches
    is given up, and the answer is no.  [reading: 8.1 leaves open how equal names are told apart]
    """
    # Half a second that only an evaluation needs.
    from scipy.optimize import Bounds, LinearConstraint, milp

    wanted = Counter(chains)
    places = [(chain, path) for chain in wanted for path in _paths(chain, structure)]
    if any(sum(chain == found for found, _ in places) < count for chain, count in wanted.items()):
        return False
    uses = np.zeros((len(structure.keys), len(places)))
    for column, (_, path) in enumerate(places):
        uses[path, column] = 1
    if not (uses.sum(axis=1) > 1).any():
        return True
    rows = {chain: row for row, chain in enumerate(wanted)}
    taken = np.zeros((len(wanted), len(places)))
    for column, (chain, _) in enumerate(places):
        taken[rows[chain], column] = 1
    counts = list(wanted.values())
    solution = milp(
        np.zeros(len(places)),
        integrality=np.ones(len(places)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(uses, -np.inf, 1), LinearConstraint(taken, counts, counts)],
        options={"node_limit": MOST_BRANCHES},
    )
    return solution.x is not None


def _paths(chain: tuple[str, ...], structure: Nodes) -> list[list[int]]:
    """Return the places of a chain of names in the structure, each from its last node up to its first."""
    found = []
    for last in range(len(structure.keys)):
        path, node = [], last
        for name in reversed(chain):
            if node < 0 or structure.keys[node] != name:
                break
            path.append(node)
            node = structure.parents[node]
        else:
            found.append(path)
    return found
