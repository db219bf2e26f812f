"""Metrics of ranked candidates, one number a query, from hits [n, k] (true where the candidate at that place is a
target) and the number of targets [n] of each query, at least one. A metric of many queries is their mean."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Hit = NDArray[np.bool_]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]
"""[n] one number a query."""


def recall(hits: Hit, targets: Counts) -> Values:
    """Targets found / all targets. With one target a query, the same as the hit rate."""
    return np.asarray(hits.sum(1) / targets)


def precision(hits: Hit, targets: Counts) -> Values:
    """Targets found / k, also where the catalogue has fewer candidates than k."""
    return np.asarray(hits.mean(1))


def hit_rate(hits: Hit, targets: Counts) -> Values:
    """1 where any target is found."""
    return np.asarray(hits.any(1), np.float64)


def ndcg(hits: Hit, targets: Counts) -> Values:
    """Järvelin & Kekäläinen 2002, binary gains: Σ 1/log2(place + 1) over the targets found, divided by what the best
    order of min(targets, k) of them would give."""
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discounts)[np.minimum(targets, hits.shape[1]) - 1]
    return np.asarray(hits @ discounts / ideal)


def mrr(hits: Hit, targets: Counts) -> Values:
    """1 / the place of the first target found, 0 where none is."""
    first = np.where(hits.any(1), hits.argmax(1) + 1, np.inf)
    return np.asarray(1 / first)


def average_precision(hits: Hit, targets: Counts) -> Values:
    """Σ of the precision at each target found / min(targets, k); its mean over queries is MAP@k."""
    places = np.arange(1, hits.shape[1] + 1)
    return np.asarray((hits * np.cumsum(hits, 1) / places).sum(1) / np.minimum(targets, hits.shape[1]))


METRICS: dict[str, Callable[[Hit, Counts], Values]] = {
    "recall": recall,
    "ndcg": ndcg,
    "hit": hit_rate,
    "mrr": mrr,
    "precision": precision,
    "map": average_precision,
}
"""The metrics of hits, by the name that stands before @k."""
