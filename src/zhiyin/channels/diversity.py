"""Controllable diversity (Cen et al. 2020, "Controllable Multi-Interest Framework for Recommendation", section 3.3)."""

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import RequestError
from zhiyin.indexes.base import Vectors


def diverse(scores: Vectors, categories: Rows, k: int, weight: float) -> Rows:
    """[min(k, f)] places among f candidates, in the order they are chosen: greedily the one with the greatest
    score + weight · (how many of those already chosen are of another category).

    scores [f], larger is better; categories [f], `UNKNOWN` where an item has none: it differs from every other. Of
    equal candidates the first is chosen; weight 0 ranks by score. Raises `RequestError` for a weight that is negative
    or no number.
    """
    if not (weight >= 0 and np.isfinite(weight)):
        raise RequestError(f"{weight}", where="diversity", expected="a number of at least 0")
    # what every candidate gains alike does not change who is best: a candidate of a chosen category falls behind instead
    left = scores.astype(np.float64)
    chosen = np.empty(min(k, len(left)), np.int32)
    for turn in range(len(chosen)):
        best = int(left.argmax())
        chosen[turn] = best
        if categories[best] != UNKNOWN:
            left[categories == categories[best]] -= weight
        left[best] = -np.inf
    return chosen
