"""What recall cannot tell: how the candidates [n, k] of all queries lie over the catalogue. `UNKNOWN` counts for
nothing; popularity [m] is each item's training events."""

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.evaluation.metrics import Counts

GROUPS = 10
"""Groups of items, each with an equal share of the training events, that popularity is shown by."""

BLOCK = 1 << 12
"""Queries whose lists are looked at at a time."""


def coverage(found: Rows, catalogue: int) -> float:
    """The share of the catalogue that is a candidate of any query."""
    return float((exposure(found, catalogue) > 0).mean())


def exposure(found: Rows, catalogue: int) -> Counts:
    """[m] how often each item is a candidate."""
    return np.bincount(found[found != UNKNOWN], minlength=catalogue)


def gini(found: Rows, catalogue: int) -> float:
    """Gini's coefficient of the exposure over the whole catalogue: 0 where every item is a candidate as often as every
    other, near 1 where few take it all."""
    sizes = np.sort(exposure(found, catalogue)).astype(np.float64)
    if not sizes.sum():
        return 0.0
    ranks = np.arange(1, catalogue + 1)
    return float(((2 * ranks - catalogue - 1) * sizes).sum() / (catalogue * sizes.sum()))


def novelty(found: Rows, popularity: Counts) -> float:
    """Mean self-information of the candidates in bits (Zhou et al. 2010): −log2 of an item's share of the training
    events, with one event more for every item so that a new one's is finite."""
    bits = -np.log2((popularity + 1) / (popularity.sum() + len(popularity)))
    there = found[found != UNKNOWN]
    return float(bits[there].mean()) if len(there) else 0.0


def popularity_lift(found: Rows, wanted: Rows, popularity: Counts) -> float:
    """Mean training events of a candidate / of a target: 1 where what is offered is as popular as what is chosen."""
    offered, chosen = found[found != UNKNOWN], wanted[wanted != UNKNOWN]
    level = popularity[chosen].mean() if len(chosen) else 0.0
    return float(popularity[offered].mean() / level) if level and len(offered) else 0.0


def popularity_groups(popularity: Counts) -> NDArray[np.int64]:
    """[m] 0 … `GROUPS` − 1: by falling popularity (equal: lower row first), each group's items together have an equal
    share of the training events, as nearly as items allow. Items without any are in the last."""
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    total = max(int(popularity.sum()), 1)
    groups = np.empty(len(popularity), np.int64)
    groups[order] = np.where(popularity[order] > 0, np.minimum(before * GROUPS // total, GROUPS - 1), GROUPS - 1)
    return groups


def popularity_shares(rows: Rows, groups: NDArray[np.int64]) -> list[float]:
    """What share of these rows is of each popularity group."""
    there = rows[rows != UNKNOWN]
    return [float(share) for share in np.bincount(groups[there], minlength=GROUPS) / max(len(there), 1)]


def diversity(found: Rows, traits: NDArray[np.float32]) -> float:
    """Intra-list diversity (Ziegler et al. 2005): the mean over queries of the mean of 1 − cos over pairs of
    candidates, by their traits [m, t]. Lists of fewer than two are left out; an item without traits has cosine 0."""
    lengths = np.linalg.norm(traits, axis=1, keepdims=True)
    unit = np.vstack([traits / np.maximum(lengths, 1e-12), np.zeros((1, traits.shape[1]), np.float32)])
    total, lists = 0.0, 0
    for start in range(0, len(found), BLOCK):
        block = found[start : start + BLOCK]
        sums = np.stack([unit[row].sum(0) for row in block]).astype(np.float64)  # UNKNOWN = −1 is the row of zeros
        own = (unit**2).sum(1)[block].sum(1)
        sizes = (block != UNKNOWN).sum(1)
        many = sizes > 1
        pairs = (sizes * (sizes - 1))[many]
        total += float((1 - ((sums**2).sum(1) - own)[many] / pairs).sum())
        lists += int(many.sum())
    return total / lists if lists else 0.0


def one_hot(column: Column, most: int = 256) -> NDArray[np.float32]:
    """[m, t] traits from a column of categories, or of lists of them: one axis for each of the `most` common."""
    listed = [_values(value) for value in column]
    names, counts = np.unique([v for values in listed for v in values], return_counts=True)
    kept = {name: at for at, name in enumerate(names[np.argsort(-counts, kind="stable")[:most]].tolist())}
    traits = np.zeros((len(listed), max(len(kept), 1)), np.float32)
    for row, values in enumerate(listed):
        for value in values:
            if value in kept:
                traits[row, kept[value]] = 1
    return traits


def _values(value: object) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, list | tuple | np.ndarray) else [str(value)]
