"""What approximate backends have in common: how much they fetch, how that is scored again, and what they do when only
some rows are allowed."""

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.exact import ExactIndex

FEW = 0.02
"""Up to this share of allowed rows, exact search among them is complete, and no slower (docs/decisions/0021)."""


LEAST_FETCHED = 64
"""Scoring so few hits again costs next to nothing, and for a small k rough scores need them."""


OVER_FETCH = 1.3
"""How many times more than a filter lets pass on average is fetched where the backend knows no filter, so that few
queries fall short."""


MOST_WIDENED = 4.0
"""How many times more is fetched, at most, because of a filter."""


GATHERED = 1 << 22
"""How many numbers of the vectors are gathered at once to score hits again: 16 MB."""


def fetched_for(k: int, refine: float, widen: float) -> int:
    """How many hits of rough scores are fetched and scored again, so that k remain. What passes a filter (one row of
    `widen`) lies farther off, where more rows have about the same score: more of them must be seen in full."""
    return max(k, round(k * refine * min(widen, MOST_WIDENED)), LEAST_FETCHED)


def refined(queries: Vectors, rows: NDArray[np.int64], vectors: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """Of rows [n, f] that were found by rough scores, the k best by their true ones: scores [n, k] and rows [n, k].
    Each score is computed by itself, and equal ones are ordered by row: how many others there are, and in which order
    they were found, leaves no trace."""
    rows = np.sort(rows, axis=1)
    scores: Vectors = np.empty(rows.shape, np.float32)
    step = max(1, GATHERED // (rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        np.einsum("nfd,nd->nf", vectors.take(rows[part], axis=0), queries[part], out=scores[part])
    scores[rows == UNKNOWN] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    places = np.arange(len(rows))[:, None]
    return scores[places, order], rows[places, order]


def is_tight(passing: int, size: int, k: int) -> bool:
    """Whether so few rows pass that exact search among them is the better way."""
    return passing <= max(k, FEW * size)


def completed(hits: Hits, exact: ExactIndex, queries: Vectors, k: int, allowed: Allowed | None, passing: int) -> Hits:
    """`hits`, where queries that the backend left short are answered exactly: none is short while there are more."""
    short = np.flatnonzero(hits.rows[:, min(k, passing) - 1] == UNKNOWN)
    if len(short):
        answered = exact.search(queries[short], k, allowed)
        hits.rows[short], hits.scores[short] = answered.rows, answered.scores
    return hits
