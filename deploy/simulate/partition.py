"""Who holds which cells: labelled groups shared out between simulated hospitals, never torn apart."""

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Final

import numpy as np

from client_node.datasets.labelled import LabelledCell
from client_node.datasets.splits import Split
from shared.contracts.errors import NothingToDoError

Parts = list[list[LabelledCell]]
LEAST_TRAINING: Final = 4
"""So many training cells every hospital has: who got fewer takes groups from who has most."""


class Sharing(StrEnum):
    """How cells are shared out."""

    DIRICHLET = "dirichlet"
    """Each class by shares drawn from a Dirichlet distribution (Yurochkin et al. 2019): skewed labels and sizes."""
    GROUP = "group"
    """Each group to a hospital by chance: alike but for chance."""


def share_out(cells: Sequence[LabelledCell], hospitals: int, *, sharing: Sharing, alpha: float, seed: int = 0) -> Parts:
    """Return the cells of each of ``hospitals``; the same arguments give the same parts on every machine.

    All splits are shared out alike: a hospital is judged by the classes that it has. ``alpha`` > 0: the smaller the
    more skewed; only for `Sharing.DIRICHLET`.

    Raises:
        NothingToDoError: there are too few training groups for so many hospitals.
    """
    random = np.random.default_rng(seed)
    groups = _groups(cells)
    training = [name for name, members in groups.items() if members[0].split is Split.TRAIN]
    if len(training) < LEAST_TRAINING * hospitals:
        raise NothingToDoError(
            f"{len(training)} training groups are too few for {hospitals} hospitals: each needs {LEAST_TRAINING}."
            " Ask for fewer hospitals, or give more labelled images."
        )
    by_class: dict[str, list[str]] = defaultdict(list)
    for name, members in groups.items():
        by_class[members[0].cls.value].append(name)
    place: dict[str, int] = {}
    for cls in sorted(by_class):
        shares = random.dirichlet(np.full(hospitals, alpha if sharing is Sharing.DIRICHLET else 1e6))
        for split in Split:
            names = [name for name in by_class[cls] if groups[name][0].split is split]
            place |= _cut([names[number] for number in random.permutation(len(names))], shares)
    parts: Parts = [[] for _ in range(hospitals)]
    for name, members in groups.items():
        parts[place[name]].extend(members)
    return _filled(parts)


def _groups(cells: Sequence[LabelledCell]) -> dict[str, list[LabelledCell]]:
    """Return the cells by group, the groups in an order that says nothing."""
    found: dict[str, list[LabelledCell]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.hash):
        found[f"{cell.source}/{cell.group}"].append(cell)
    return dict(sorted(found.items(), key=lambda item: sha256(item[0].encode()).digest()))


def _cut(names: Sequence[str], shares: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, int]:
    """Cut a list at the shares' running sums; the rounding is by the sums, so that no hospital loses by it twice."""
    ends = np.round(np.cumsum(shares) * len(names)).astype(int)
    places = np.searchsorted(ends, np.arange(len(names)), side="right")
    return {name: min(int(where), len(shares) - 1) for name, where in zip(names, places, strict=True)}


def _filled(parts: Parts) -> Parts:
    """Move training groups from the largest hospital to those that have too few cells."""
    while (smallest := min(parts, key=_training)) is not None and _training(smallest) < LEAST_TRAINING:
        largest = max(parts, key=_training)
        group = next(cell.group for cell in largest if cell.split is Split.TRAIN)
        smallest.extend(cell for cell in largest if cell.group == group)
        largest[:] = [cell for cell in largest if cell.group != group]
    return parts


def _training(part: Sequence[LabelledCell]) -> int:
    return sum(cell.split is Split.TRAIN for cell in part)
