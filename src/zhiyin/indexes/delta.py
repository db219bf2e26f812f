"""A live index: rows are added, replaced and deleted while it is searched.

A main index that never changes, tombstones over it, and a small exact index of what came since. A search takes one
reference to the three and sees them as they were at that moment; a write makes new ones and swaps the reference. In the
background a compaction builds all of it into the next generation's main index; writes meanwhile go on, and are carried
over when it is adopted (the log-structured merge of O'Neil et al. 1996, for vectors).
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Hits, HostedSpec, IndexSpec, Searchable, Vectors
from zhiyin.indexes.checks import check_search, check_vectors
from zhiyin.indexes.exact import Exact

SPARE = 32
"""So many more hits are fetched when some rows are dead: a filter costs every search more than that, and is wanted only
by the few queries that still find too little."""

MOST_DEAD = 0.1
"""Where a larger share of the rows is dead, all searches are filtered."""


@dataclass(frozen=True, slots=True)
class Part:
    """An index whose i-th vector is that of `rows[i]`; `rows` ascending. No index when there are none."""

    rows: Rows
    vectors: Vectors
    index: Searchable | None

    @classmethod
    def of(cls, spec: IndexSpec, rows: Rows, vectors: Vectors) -> "Part":
        return cls(rows, vectors, spec.build(vectors) if len(rows) else None)

    def places(self, rows: Rows) -> NDArray[np.int64]:
        """Where those of `rows` that are here stand, in the order of `rows`."""
        if not len(self.rows):
            return np.empty(0, np.int64)
        at: NDArray[np.int64] = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.asarray(at[self.rows[at] == rows])


@dataclass(frozen=True, slots=True)
class Layer:
    """A part, some of whose rows were replaced or deleted since: `alive` [m] are the others, None where all are."""

    part: Part
    alive: NDArray[np.bool_] | None = None
    dead: int = 0

    def __len__(self) -> int:
        return len(self.part.rows) - self.dead

    def with_only(self, alive: NDArray[np.bool_]) -> "Layer":
        """The same part, of which these [m] are alive."""
        dead = len(alive) - int(np.count_nonzero(alive))
        return Layer(self.part, alive if dead else None, dead)

    def without(self, rows: Rows) -> "Layer":
        """The same without these rows; those that are not here are passed over."""
        places = self.part.places(rows)
        if not len(places):
            return self
        alive = np.ones(len(self.part.rows), bool) if self.alive is None else self.alive.copy()
        alive[places] = False
        return self.with_only(alive)

    def copy(self, rows: Rows, vectors: Vectors) -> None:
        """Write the vectors of those of `rows` [n] that are alive here into their places of `vectors` [n, d]."""
        if not len(self.part.rows):
            return
        at = np.minimum(np.searchsorted(self.part.rows, rows), len(self.part.rows) - 1)
        here = self.part.rows[at] == rows
        if self.alive is not None:
            here &= self.alive[at]
        vectors[here] = self.part.vectors[at[here]]

    def all(self) -> tuple[Rows, Vectors]:
        """Every row that is alive, ascending, and its vector."""
        kept = slice(None) if self.alive is None else self.alive
        return self.part.rows[kept], self.part.vectors[kept]


@dataclass(frozen=True, slots=True)
class State:
    """What one search sees: a main index, and the small one of what came since."""

    generation: int
    main: Layer
    recent: Part

    def __len__(self) -> int:
        return len(self.main) + len(self.recent.rows)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.main, Layer(self.recent)

    def all(self) -> tuple[Rows, Vectors]:
        """Every row there is, ascending, and its vector."""
        rows, vectors = self.main.all()
        rows, vectors = np.concatenate([rows, self.recent.rows]), np.concatenate([vectors, self.recent.vectors])
        order = np.argsort(rows)
        return rows[order], vectors[order]


class Live:
    """Vectors [m, d] under row numbers of the caller's, changed while they are searched, from any number of threads.

    `spec`: what each generation's main index is. `compact_at`: from so many rows that changed since the last generation
    on, a write starts a compaction; 0 leaves that to the caller. Raises `SearchError` for an index that lives in a
    server: every compaction would leave a collection there that no release names, and nobody may drop.
    """

    def __init__(self, spec: IndexSpec, vectors: Vectors, rows: Rows | None = None, compact_at: int = 0) -> None:
        if isinstance(spec, HostedSpec):
            raise SearchError(
                f"{type(spec).__name__} lives in a server, and each compaction would leave a collection there",
                where="live index",
                expected="an index of this process",
                remedy="Publish it in a release: what comes later is laid over it there.",
            )
        vectors = check_vectors(vectors) if len(vectors) else np.asarray(vectors, np.float32)
        rows = np.arange(len(vectors), dtype=np.int32) if rows is None else _checked_rows(rows, len(vectors))
        if (np.diff(rows) < 0).any():
            order = np.argsort(rows)
            rows, vectors = rows[order], vectors[order]
        self._spec, self._compact_at, self._dim = spec, compact_at, vectors.shape[1]
        self._lock = Lock()
        self._running: Future[int] | None = None
        self._since: list[Rows] = []
        self._state = State(0, Layer(Part.of(spec, rows, vectors)), self._nothing())

    def __len__(self) -> int:
        return len(self._state)

    @property
    def state(self) -> State:
        """All there is at this moment; it never changes."""
        return self._state

    @property
    def generation(self) -> int:
        """How many compactions have been adopted."""
        return self._state.generation

    @property
    def changed(self) -> int:
        """How many rows the next compaction will fold in: recent ones, and dead ones of the main index."""
        state = self._state
        return len(state.recent.rows) + state.main.dead

    def snapshot(self) -> tuple[Rows, Vectors]:
        """Every row there is, ascending, and its vector: what a release of this moment would hold."""
        return self._state.all()

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        """As an index's, over all rows there are. Rows from `len(allowed)` on are not allowed: they are newer."""
        state = self._state
        size = 0 if allowed is None else len(allowed)
        queries = check_search(queries, k, allowed, size, self._dim)
        return search(state.layers, queries, k, allowed)

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
            recent = self._state.recent
            kept = recent.places(since)
            recent = Part.of(Exact(), recent.rows[kept], recent.vectors[kept])
            self._state = State(state.generation + 1, Layer(main).without(since), recent)
            self._running = None
        future.set_result(state.generation + 1)

    def _write(self, touched: Rows, rows: Rows, vectors: Vectors) -> None:
        """Whatever `touched` rows were is gone; `rows` are now these vectors."""
        with self._lock:
            state = self._state
            kept = ~np.isin(state.recent.rows, touched)
            rows, vectors = np.r_[state.recent.rows[kept], rows], np.r_[state.recent.vectors[kept], vectors]
            order = np.argsort(rows)
            recent = Part.of(Exact(), rows[order], vectors[order])
            self._state = State(state.generation, state.main.without(touched), recent)
            if self._running is not None:
                self._since.append(touched)
            elif self._compact_at and self.changed >= self._compact_at:
                self._compaction()

    def _nothing(self) -> Part:
        return Part(np.empty(0, np.int32), np.empty((0, self._dim), np.float32), None)


def search(layers: Sequence[Layer], queries: Vectors, k: int, allowed: Allowed | None) -> Hits:
    """The best k rows of several layers that share no living row, under the caller's row numbers."""
    found = [_search(layer, queries, k, allowed) for layer in layers if layer.part.index is not None]
    if len(found) == 1 and found[0].rows.shape[1] == k:
        return found[0]
    return _merged(found, k) if found else Hits.none(len(queries), k)


def _search(layer: Layer, queries: Vectors, k: int, allowed: Allowed | None) -> Hits:
    """At least k hits of a layer with rows, under the caller's row numbers; what is not there has no score."""
    part = layer.part
    assert part.index is not None  # noqa: S101 – `search` asks no other
    if allowed is not None:
        passing = _at(allowed, part.rows)
        hits = part.index.search(queries, k, passing if layer.alive is None else passing & layer.alive)
    elif layer.alive is None:
        hits = part.index.search(queries, k)
    elif layer.dead > MOST_DEAD * len(part.rows):
        hits = part.index.search(queries, k, layer.alive)
    else:
        hits = _past_the_dead(part.index, queries, k, layer.alive, layer.dead)
    rows = np.where(hits.rows == UNKNOWN, np.int32(UNKNOWN), part.rows[hits.rows])
    return Hits(rows, hits.scores)


def _past_the_dead(index: Searchable, queries: Vectors, k: int, alive: NDArray[np.bool_], dead: int) -> Hits:
    """The hits of an index that are alive: some more are fetched, and where that leaves a query short, it is asked
    again with a filter."""
    spare = min(dead, SPARE)
    hits = index.search(queries, k + spare)
    there = hits.rows != UNKNOWN
    there &= alive[hits.rows]
    found = Hits(
        np.where(there, hits.rows, np.int32(UNKNOWN)),
        np.where(there, hits.scores, np.float32(-np.inf)).astype(np.float32),
    )
    short = np.flatnonzero(there.sum(axis=1) < min(k, len(alive) - dead))
    if len(short) and spare < dead:
        again = index.search(queries[short], k + spare, alive)
        found.rows[short], found.scores[short] = again.rows, again.scores
    return found


def _at(allowed: Allowed, rows: Rows) -> Allowed:
    """Which of `rows`, ascending, are allowed."""
    if not len(allowed) or not len(rows):
        return np.zeros(len(rows), bool)
    if rows[-1] == len(rows) - 1 and len(allowed) >= len(rows):  # rows 0 … m-1
        return allowed[: len(rows)]
    known: Allowed = allowed[np.minimum(rows, len(allowed) - 1)] & (rows < len(allowed))
    return known


def _merged(found: Sequence[Hits], k: int) -> Hits:
    """The best k of all, by descending score and then by row; those without a score last."""
    rows, scores = np.hstack([one.rows for one in found]), np.hstack([one.scores for one in found])
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
