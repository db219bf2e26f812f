"""overlap@k: how much of what exact search finds an index finds too."""

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.indexes.base import Hits


def overlap(hits: Hits, exact: Hits) -> float:
    """The share of exact search's hits, over all queries, that are among the index's; 1 where exact finds none."""
    wanted = exact.rows != UNKNOWN
    found = sum(np.isin(row[there], mine).sum() for row, there, mine in zip(exact.rows, wanted, hits.rows, strict=True))
    return float(found / wanted.sum()) if wanted.any() else 1.0
