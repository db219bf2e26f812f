"""What the faiss backends share: their files, searching, and the exact way out of a tight filter."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search, foreign
from zhiyin.indexes.exact import ExactIndex

FEW = 0.05
"""Below this share of allowed rows an exact search among them is both faster and complete."""


class FaissIndex:
    """A faiss index of inner products, with the vectors it was built from. `parameters(k, selector)` are one search's:
    shared state is never changed, so many threads may search at once."""

    def __init__(self, index: Any, vectors: Vectors, parameters: Any) -> None:
        self._index, self._vectors, self._parameters = index, vectors, parameters

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        queries = check_search(queries, k, allowed, len(self), self._index.d)
        if allowed is not None and allowed.sum() <= max(k, FEW * len(self)):
            return ExactIndex(self._vectors).search(queries, k, allowed)
        kept = min(k, len(self))
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(len(self), faiss.swig_ptr(bits))
        hits = Hits.none(len(queries), k)
        if len(queries):
            scores, rows = self._index.search(queries, kept, params=self._parameters(kept, selector))
            hits.rows[:, :kept], hits.scores[:, :kept] = rows, np.where(rows == UNKNOWN, -np.inf, scores)
        return hits if allowed is None else self._completed(hits, queries, k, allowed)

    def save(self, path: Path) -> None:
        path.write_bytes(faiss.serialize_index(self._index).tobytes())

    def _completed(self, hits: Hits, queries: Vectors, k: int, allowed: Allowed) -> Hits:
        """Queries that a filter left short are answered exactly."""
        short = np.flatnonzero((hits.rows != UNKNOWN).sum(1) < min(k, int(allowed.sum())))
        if len(short):
            exact = ExactIndex(self._vectors).search(queries[short], k, allowed)
            hits.rows[short], hits.scores[short] = exact.rows, exact.scores
        return hits


def load(path: Path, kind: Any, vectors: Vectors) -> Any:
    """The faiss index in a file. Raises `SearchError` for a file that is damaged, foreign, or of other vectors."""
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise foreign(path, str(error).split("\n")[0][:120]) from None
    if not isinstance(index, kind):
        raise foreign(path, f"it is a {type(index).__name__}")
    if (index.ntotal, index.d) != vectors.shape:
        raise foreign(path, f"it is of {[index.ntotal, index.d]}, the vectors are of {list(vectors.shape)}")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise SearchError("its metric is not the inner product", where=str(path))
    return index
