"""A live index: rows are added, replaced and deleted while it is searched.

A main index that never changes, tombstones over it, and a small exact index of what came since. A search takes one
reference to the three and sees them as they were at that moment; a write makes new ones and swaps the reference. In the
background a compaction builds all of it into the next generation's main index; writes meanwhile go on, and are carried
over when it is adopted (the log-structured merge of O'Neil et al. 1996, for vectors).
"""

from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Hits, Index, IndexSpec, Vectors
from zhiyin.indexes.checks import check_search, check_vectors
from zhiyin.indexes.exact import Exact

FEW_DEAD = 64
"""So many hidden hits are fetched too much rather than filtered out: a filter costs every search more."""


@dataclass(frozen=True, slots=True)
class Part:
    """An index whose i-th vector is that of `rows[i]`; `rows` ascending. No index when there are none."""

    rows: Rows
    vectors: Vectors
    index: Index | None

    @classmethod
    def of(cls, spec: IndexSpec, rows: Rows, vectors: Vectors) -> "Part":
        return cls(rows, vectors, spec.build(vectors) if len(rows) else None)

    def places(self, rows: Rows) -> NDArray[np.int64]:
        """Where those of `rows` that are here stand."""
        return np.flatnonzero(np.isin(self.rows, rows, assume_unique=True))


@dataclass(frozen=True, slots=True)
class State:
    """What one search sees: `dead` [m] are the main index's rows that were replaced or deleted."""

    generation: int
    main: Part
    dead: NDArray[np.bool_]
    recent: Part

    def all(self) -> tuple[Rows, Vectors]:
        """Every row there is, ascending, and its vector."""
        rows = np.concatenate([self.main.rows[~self.dead], self.recent.rows])
        vectors = np.concatenate([self.main.vectors[~self.dead], self.recent.vectors])
        order = np.argsort(rows)
        return rows[order], vectors[order]


class Live:
    """Vectors [m, d] under row numbers of the caller's, changed while they are searched, from any number of threads.

    `spec`: what each generation's main index is. `compact_at`: from so many rows that changed since the last generation
    on, a write starts a compaction; 0 leaves that to the caller.
    """

    def __init__(self, spec: IndexSpec, vectors: Vectors, rows: Rows | None = None, compact_at: int = 0) -> None:
        vectors = check_vectors(vectors)
        rows = np.arange(len(vectors), dtype=np.int32) if rows is None else _checked_rows(rows, len(vectors))
        if (np.diff(rows) < 0).any():
            order = np.argsort(rows)
            rows, vectors = rows[order], vectors[order]
        self._spec, self._compact_at, self._dim = spec, compact_at, vectors.shape[1]
        self._lock = Lock()
        self._running: Future[int] | None = None
        self._since: list[Rows] = []
        self._state = State(0, Part.of(spec, rows, vectors), np.zeros(len(rows), bool), self._nothing())

    def __len__(self) -> int:
        state = self._state
        return len(state.main.rows) - int(state.dead.sum()) + len(state.recent.rows)

    @property
    def generation(self) -> int:
        """How many compactions have been adopted."""
        return self._state.generation

    @property
    def changed(self) -> int:
        """How many rows the next compaction will fold in: recent ones, and dead ones of the main index."""
        state = self._state
        return len(state.recent.rows) + int(state.dead.sum())

    def snapshot(self) -> tuple[Rows, Vectors]:
        """Every row there is, ascending, and its vector: what a release of this moment would hold."""
        return self._state.all()

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        """As an index's, over all rows there are. Rows from `len(allowed)` on are not allowed: they are newer."""
        state = self._state
        size = 0 if allowed is None else len(allowed)
        queries = check_search(queries, k, allowed, size, self._dim)
        found = _search(state.main, queries, k, allowed, state.dead)
        recent = _search(state.recent, queries, k, allowed, np.zeros(len(state.recent.rows), bool))
        return _merged(found, recent, k)

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """Add these rows, or replace their vectors [n, d]. Raises `SearchError` for a row below 0 or given twice, for
        vectors of another width or not finite; nothing has changed then."""
        if not len(rows) and not len(vectors):
            return
        vectors = check_vectors(vectors)
        rows = _checked_rows(rows, len(vectors))
        if vectors.shape[1] != self._dim:
            raise SearchError(f"vectors of width {vectors.shape[1]}", where="live index", expected=f"{self._dim}")
        self._write(rows, rows, vectors)

    def delete(self, rows: Rows) -> None:
        """Remove these rows; those that are not there are passed over."""
        self._write(np.asarray(rows, np.int32), np.empty(0, np.int32), np.empty((0, self._dim), np.float32))

    def compact(self) -> "Future[int]":
        """Build everything into the next generation, in the background; the future is its number, or why it failed
        (nothing has changed then). A compaction that is going on is not started twice."""
        with self._lock:
            return self._compaction()

    def _compaction(self) -> "Future[int]":
        if self._running is None:
            self._running, self._since = Future(), []
            Thread(target=self._compact, args=(self._state, self._running), daemon=True).start()
        return self._running

    def _compact(self, state: State, future: "Future[int]") -> None:
        try:
            main = Part.of(self._spec, *state.all())
        except Exception as error:
            with self._lock:
                self._running = None
            future.set_exception(error)
            return
        with self._lock:
            since = np.unique(np.concatenate([np.empty(0, np.int32), *self._since]))
            dead, recent = np.zeros(len(main.rows), bool), self._state.recent
            dead[main.places(since)] = True
            kept = recent.places(since)
            recent = Part.of(Exact(), recent.rows[kept], recent.vectors[kept])
            self._state = State(state.generation + 1, main, dead, recent)
            self._running = None
        future.set_result(state.generation + 1)

    def _write(self, touched: Rows, rows: Rows, vectors: Vectors) -> None:
        """Whatever `touched` rows were is gone; `rows` are now these vectors."""
        with self._lock:
            state = self._state
            dead = state.dead.copy()
            dead[state.main.places(touched)] = True
            kept = ~np.isin(state.recent.rows, touched)
            rows, vectors = np.r_[state.recent.rows[kept], rows], np.r_[state.recent.vectors[kept], vectors]
            order = np.argsort(rows)
            self._state = replace(state, dead=dead, recent=Part.of(Exact(), rows[order], vectors[order]))
            if self._running is not None:
                self._since.append(touched)
            elif self._compact_at and self.changed >= self._compact_at:
                self._compaction()

    def _nothing(self) -> Part:
        return Part(np.empty(0, np.int32), np.empty((0, self._dim), np.float32), None)


def _search(part: Part, queries: Vectors, k: int, allowed: Allowed | None, dead: NDArray[np.bool_]) -> Hits:
    """The part's hits under the caller's row numbers; dead ones have no score."""
    if part.index is None:
        return Hits.none(len(queries), k)
    count = int(dead.sum())
    if allowed is None and count <= FEW_DEAD:
        hits = part.index.search(queries, k + count)
    else:
        alive = ~dead if allowed is None else ~dead & _at(allowed, part.rows)
        hits = part.index.search(queries, k, alive)
    real = hits.rows != UNKNOWN
    real[real] = ~dead[hits.rows[real]]
    rows = np.full(hits.rows.shape, UNKNOWN, np.int32)
    rows[real] = part.rows[hits.rows[real]]
    return Hits(rows, np.where(real, hits.scores, np.float32(-np.inf)))


def _at(allowed: Allowed, rows: Rows) -> Allowed:
    """Which of `rows` are allowed."""
    if not len(allowed):
        return np.zeros(len(rows), bool)
    known: Allowed = allowed[np.minimum(rows, len(allowed) - 1)] & (rows < len(allowed))
    return known


def _merged(one: Hits, other: Hits, k: int) -> Hits:
    """The best k of both, by descending score and then by row; those without a score last."""
    rows, scores = np.hstack([one.rows, other.rows]), np.hstack([one.scores, other.scores])
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def _checked_rows(rows: Rows, count: int) -> Rows:
    """[count] as int32. Raises `SearchError` for another number of them, one below 0 or one given twice."""
    rows = np.asarray(rows, np.int32)
    if rows.shape != (count,):
        raise SearchError(f"rows of shape {list(rows.shape)}", where="live index", expected=f"[{count}], one a vector")
    unique, counts = np.unique(rows, return_counts=True)
    if len(unique) and unique[0] < 0:
        raise SearchError(f"row {unique[0]}", where="live index", expected="at least 0")
    if (counts > 1).any():
        raise SearchError(f"row {unique[counts > 1][0]} is given twice", where="live index")
    return rows
