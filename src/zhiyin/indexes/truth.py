"""What exact search answers many queries, on every core: what an index is measured by."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from zhiyin.indexes.base import Hits, Vectors
from zhiyin.indexes.exact import QUERIES, Exact


def truth(vectors: Vectors, queries: Vectors, k: int) -> Hits:
    """The exact top k among `vectors` [m, d] of `queries` [n, d], every bit as `Exact` answers them.

    The cores share the queries, and BLAS has no threads of its own meanwhile: those wait for each other at every block,
    and where a neighbour is busy they spin away several times what the products cost (docs/decisions/0046).
    """
    exact = Exact().build(vectors)
    parts = np.array_split(queries, max(1, math.ceil(len(queries) / QUERIES)))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda part: exact.search(part, k), parts))
    return Hits(np.concatenate([one.rows for one in found]), np.concatenate([one.scores for one in found]))
