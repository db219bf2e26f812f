"""What the faiss backends share: their files, searching, and the exact way out of a tight filter."""

from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search, foreign
from zhiyin.indexes.exact import ExactIndex
from zhiyin.indexes.filtering import completed, fetched_for, is_tight, refined


class Settings(Protocol):
    """How a built index is searched: the half of a spec that can change without building again."""

    @property
    def refine(self) -> float:
        """How many hits are fetched for each one asked for, and scored again from the vectors; 0 for an index whose own
        scores are the inner products."""
        ...

    def parameters(self, index: Any, k: int, selector: Any, widen: float) -> Any:
        """faiss's parameters of one search of its `index`. `widen` ≥ 1: how much harder to look, since a filter hides
        most rows."""
        ...


class FaissIndex:
    """A faiss index of inner products, beside the vectors it was built from. A search's parameters are handed to faiss
    with the call: no shared state is changed, so many threads may search at once."""

    def __init__(self, index: Any, exact: ExactIndex, settings: Settings) -> None:
        self._index, self._exact, self._settings = index, exact, settings

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        queries = check_search(queries, k, allowed, len(self), self._index.d)
        passing = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if passing == len(self):
            allowed = None
        if allowed is not None and is_tight(passing, len(self), k):
            return self._exact.search(queries, k, allowed)
        kept = min(k, passing)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(len(self), faiss.swig_ptr(bits))
        hits = Hits.none(len(queries), k)
        if len(queries):
            scores, rows = self._find(queries, kept, selector, len(self) / passing)
            hits.rows[:, :kept], hits.scores[:, :kept] = rows, scores
        return completed(hits, self._exact, queries, k, allowed, passing)

    def save(self, path: Path) -> None:
        with path.open("xb") as file:
            file.write(faiss.serialize_index(self._index).data)

    def searched_with(self, settings: Settings) -> "FaissIndex":
        """The same index, searched in another way."""
        return FaissIndex(self._index, self._exact, settings)

    def _find(self, queries: Vectors, k: int, selector: Any, widen: float) -> tuple[Vectors, NDArray[np.int64]]:
        refine = self._settings.refine
        fetched = min(fetched_for(k, refine, widen) if refine else k, len(self))
        parameters = self._settings.parameters(self._index, fetched, selector, widen)
        scores, rows = self._index.search(queries, fetched, params=parameters)
        scores[rows == UNKNOWN] = -np.inf
        return refined(queries, rows, self._exact.vectors, k) if refine else (scores, rows)


def load(path: Path, kind: Any, vectors: Vectors) -> Any:
    """The faiss index in a file, memory-mapped. Raises `SearchError` for a file that is damaged, foreign, or of other
    vectors."""
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:
        raise foreign(path, str(error).split("\n")[0][:120]) from None
    if not isinstance(index, kind):
        raise foreign(path, f"it is a {type(index).__name__}")
    if (index.ntotal, index.d) != vectors.shape:
        raise foreign(path, f"it is of {[index.ntotal, index.d]}, the vectors are of {list(vectors.shape)}")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise SearchError("its metric is not the inner product", where=str(path), remedy="Publish again.")
    return index
