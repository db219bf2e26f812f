"""Exact search: every inner product, a block at a time. The oracle of all other backends."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search, check_vectors, foreign

BLOCK_BYTES = 64 << 20
"""About how much memory one block of scores takes."""


@dataclass(frozen=True, slots=True)
class Exact:
    """No parameters. The vectors are searched where they lie (memory-mapped in a release)."""

    def build(self, vectors: Vectors) -> "ExactIndex":
        return ExactIndex(check_vectors(vectors))

    def load(self, path: Path, vectors: Vectors) -> "ExactIndex":
        try:
            shape = json.loads(path.read_text())["exact"]
        except (ValueError, KeyError, TypeError) as error:
            raise foreign(path, str(error)) from None
        if shape != list(vectors.shape):
            raise foreign(path, f"it is of {shape}, the vectors are of {list(vectors.shape)}")
        return ExactIndex(vectors)


class ExactIndex:
    """[m, d] vectors, searched one by one."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        queries = check_search(queries, k, allowed, *self._vectors.shape)
        if allowed is None:
            return _top(queries, self._vectors, k)
        rows = np.flatnonzero(allowed)
        hits = _top(queries, np.ascontiguousarray(self._vectors[rows]), k)
        real = hits.rows != UNKNOWN
        if not len(rows):
            return hits
        return Hits(np.where(real, rows[np.where(real, hits.rows, 0)], UNKNOWN).astype(np.int32), hits.scores)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"exact": list(self._vectors.shape)}) + "\n")


def _top(queries: Vectors, vectors: Vectors, k: int) -> Hits:
    hits = Hits.none(len(queries), k)
    kept = min(k, len(vectors))
    if not kept:
        return hits
    step = max(1, BLOCK_BYTES // (4 * len(vectors)))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ vectors.T
        best, rows = top_rows(scores, kept)
        hits.rows[start : start + step, :kept] = rows
        hits.scores[start : start + step, :kept] = best
    return hits


def top_rows(scores: Vectors, k: int) -> tuple[Vectors, np.ndarray]:
    """The k best of each row of scores [n, m], descending; equal scores by lower row. Values [n, k] and rows [n, k]."""
    if k < scores.shape[1]:
        bound = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
        candidates = scores >= bound[:, None]  # k of them, and more where the last place is tied
    else:
        candidates = np.ones_like(scores, bool)
    values, rows = np.empty((len(scores), k), np.float32), np.empty((len(scores), k), np.int32)
    for i in range(len(scores)):
        places = np.flatnonzero(candidates[i])
        order = np.argsort(-scores[i, places], kind="stable")[:k]
        rows[i] = places[order]
        values[i] = scores[i, rows[i]]
    return values, rows


EXAMPLES = (Exact(),)
