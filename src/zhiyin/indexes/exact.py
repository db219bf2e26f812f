"""Exact search: every inner product, a block at a time. The oracle of all other backends."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zhiyin.data.vocabulary import Rows
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search, check_vectors, foreign, longest
from zhiyin.indexes.top import Best

BLOCK_SCORES = 1 << 20
"""How many scores are held at once: 4 MB, about what a core's cache holds."""

QUERIES = 128
"""How many queries share one block: from here on a matrix product gains nothing by more."""

BLOCK_HITS = 1 << 22
"""How many hits are kept at once: fewer queries share a block when k is large."""


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
        self._vectors = np.asarray(vectors)  # the same memory, where it is mapped: a memmap takes long to be indexed
        self._longest = longest(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def vectors(self) -> Vectors:
        """[m, d] What is searched."""
        return self._vectors

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        queries = check_search(queries, k, allowed, *self._vectors.shape)
        rows = None if allowed is None else np.flatnonzero(allowed).astype(np.int32)
        hits = Hits.none(len(queries), k)
        together = max(1, min(QUERIES, BLOCK_HITS // k))
        for start in range(0, len(queries), together):
            part = slice(start, start + together)
            hits.rows[part], hits.scores[part] = self._search(queries[part], k, rows)
        return hits

    def save(self, path: Path) -> None:
        with path.open("x") as file:
            file.write(json.dumps({"exact": list(self._vectors.shape)}) + "\n")

    def _search(self, queries: Vectors, k: int, rows: Rows | None) -> tuple[Rows, Vectors]:
        """The answer for a few queries; `rows`: the only ones looked at, ascending."""
        count = len(self._vectors) if rows is None else len(rows)
        step = BLOCK_SCORES // len(queries)
        best = Best(queries, self._vectors, min(k, max(count, 1)), self._longest)
        scores: Vectors = np.empty(len(queries) * min(step, count), np.float32)
        for start in range(0, count, step):
            stop = min(start + step, count)
            part = np.arange(start, stop, dtype=np.int32) if rows is None else rows[start:stop]
            vectors = self._vectors[start:stop] if rows is None else self._vectors[part]
            block = scores[: len(queries) * (stop - start)].reshape(len(queries), stop - start)
            best.add(np.matmul(queries, vectors.T, out=block), part)
        return best.top(k)


EXAMPLES = (Exact(),)
