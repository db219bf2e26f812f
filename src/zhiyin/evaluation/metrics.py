"""Metrics of ranked candidates, from hits [n, k] (true where the candidate at that place is a target) and the number of
targets [n] of each query. Every metric is the mean over queries."""

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN, Rows

Hit = NDArray[np.bool_]
Counts = NDArray[np.int64]


def recall(hits: Hit, targets: Counts) -> float:
    """Targets found / all targets. With one target a query, the same as the hit rate."""
    return float((hits.sum(1) / targets).mean())


def hit_rate(hits: Hit, targets: Counts) -> float:
    """The share of queries with any target found."""
    return float(hits.any(1).mean())


def ndcg(hits: Hit, targets: Counts) -> float:
    """Järvelin & Kekäläinen 2002, binary gains: Σ 1/log2(place + 1) over the targets found, divided by what the best
    order of min(targets, k) of them would give."""
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discounts)[np.minimum(targets, hits.shape[1]) - 1]
    return float((hits @ discounts / ideal).mean())


def mrr(hits: Hit, targets: Counts) -> float:
    """1 / the place of the first target found, 0 where none is."""
    first = np.where(hits.any(1), hits.argmax(1) + 1, np.inf)
    return float((1 / first).mean())


def coverage(rows: Rows, catalogue_size: int) -> float:
    """The share of the catalogue that is a candidate of any query. rows [n, k], `UNKNOWN` counts for nothing."""
    return float(len(np.unique(rows[rows != UNKNOWN])) / catalogue_size)


METRICS = {"recall": recall, "ndcg": ndcg, "hit": hit_rate, "mrr": mrr}
"""The metrics of hits, by the name that stands before @k."""
