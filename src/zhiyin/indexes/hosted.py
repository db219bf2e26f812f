"""An index in a vector database, searched beside the release's own vectors."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SearchError
from zhiyin.indexes import database
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search
from zhiyin.indexes.database import Database, Receipt
from zhiyin.indexes.exact import ExactIndex
from zhiyin.indexes.filtering import OVER_FETCH, completed, is_tight, refined

QUERIES = 256
"""In one call …"""

HITS = 1 << 17
"""… that answers no more hits than this, unless one query does."""


class HostedIndex:
    """The database finds rows; the release's memory-mapped vectors score and order them, so that a database's rough
    scores (codes of a byte a number) are inner products all the same. A filter is this side's: few rows are searched
    exactly here, for more the database is asked for more, and who is still short is answered exactly."""

    def __init__(self, server: Database, receipt: Receipt, vectors: Vectors) -> None:
        self._database, self._receipt, self._exact = server, receipt, ExactIndex(vectors)
        self._in_doubt = False

    def __len__(self) -> int:
        return len(self._exact)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        """Raises `SearchError`, beside what the protocol says, when the database cannot be reached or has lost the
        collection: no search of the whole catalogue is done here instead, which would take this server down too."""
        queries = check_search(queries, k, allowed, *self._exact.vectors.shape)
        passing = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if passing == len(self):
            allowed = None
        kept = min(k, passing)
        fetched = (
            kept if allowed is None else min(len(self), math.ceil(OVER_FETCH * kept * len(self) / max(passing, 1)))
        )
        tight = allowed is not None and is_tight(passing, len(self), k)
        if tight or fetched > self._database.most or not len(queries):
            return self._exact.search(queries, k, allowed)
        rows = self._find(queries, fetched)
        if allowed is not None:
            rows[~allowed[rows]] = UNKNOWN
        hits = Hits.none(len(queries), k)
        hits.scores[:, :kept], hits.rows[:, :kept] = refined(queries, rows, self._exact.vectors, kept)
        return completed(hits, self._exact, queries, k, allowed, passing)

    def save(self, path: Path) -> None:
        database.save(self._database, self._receipt, path)

    def _find(self, queries: Vectors, k: int) -> NDArray[np.int64]:
        """[n, k] rows. After a failure the collection is looked at again before it is believed: a database may have
        come back without it, or with half of it."""
        if self._in_doubt:
            self._receipt.check(self._database)
        try:
            step = max(1, min(QUERIES, HITS // k))
            starts = range(0, len(queries), step)
            parts = [self._database.search(self._receipt.collection, queries[at : at + step], k) for at in starts]
        except SearchError:
            self._in_doubt = True
            raise
        self._in_doubt = False
        return self._checked(np.concatenate(parts).astype(np.int64))

    def _checked(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if rows.min() < UNKNOWN or rows.max() >= len(self):
            raise SearchError(
                f"the collection '{self._receipt.collection}' has rows that this release has not",
                where=self._database.place,
                remedy="Something has changed it. Publish again, or roll back.",
            )
        return rows
