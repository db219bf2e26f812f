"""The live index against a plain model of the set, by hypothesis and from many threads."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Hits, Index, IndexSpec, Vectors
from zhiyin.indexes.delta import Live
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.indexes.ivf_pq import IVFPQ
from zhiyin.indexes.milvus import Milvus
from zhiyin.indexes.qdrant import Qdrant

DIM = 4
ROWS = st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True)


def vectors_of(seed: int, count: int, dim: int = DIM) -> Vectors:
    """Whole numbers: every inner product is exact, and many are equal."""
    return np.random.default_rng(seed).integers(-3, 4, (count, dim)).astype(np.float32)


def expected(model: dict[int, Vectors], queries: Vectors, k: int, allowed: Allowed | None) -> Hits:
    """What a plain dictionary answers: by descending score, then by row."""
    hits = Hits.none(len(queries), k)
    rows = sorted(row for row in model if allowed is None or (row < len(allowed) and allowed[row]))
    for place, query in enumerate(queries):
        ranked = sorted(rows, key=lambda row: (-float(model[row] @ query), row))[:k]
        hits.rows[place, : len(ranked)] = ranked
        hits.scores[place, : len(ranked)] = [model[row] @ query for row in ranked]
    return hits


@dataclass(frozen=True)
class Gated:
    """Exact, but a build waits until it may go on: a compaction lasts as long as a test wants."""

    gate: threading.Event = field(default_factory=threading.Event)
    inner: IndexSpec = field(default_factory=Exact)

    def build(self, vectors: Vectors) -> Index:
        assert self.gate.wait(20)
        return self.inner.build(vectors)

    def load(self, path: Path, vectors: Vectors) -> Index:
        return self.inner.load(path, vectors)


class LiveMachine(RuleBasedStateMachine):
    """Writes, searches and compactions in any order; a compaction may be under way during any of them."""

    @initialize(count=st.integers(1, 20), seed=st.integers(0, 99))
    def start(self, count: int, seed: int) -> None:
        first = vectors_of(seed, count)
        self.spec = Gated()
        self.spec.gate.set()
        self.live = Live(self.spec, first)
        self.model: dict[int, Vectors] = dict(enumerate(first))
        self.compaction: Future[int] | None = None

    @rule(rows=ROWS, seed=st.integers(0, 999))
    def put(self, rows: list[int], seed: int) -> None:
        vectors = vectors_of(seed, len(rows))
        self.live.put(np.array(rows, np.int32), vectors)
        self.model |= dict(zip(rows, vectors, strict=True))

    @rule(rows=ROWS)
    def delete(self, rows: list[int]) -> None:
        self.live.delete(np.array(rows, np.int32))
        self.model = {row: vector for row, vector in self.model.items() if row not in rows}

    @rule()
    def delete_all(self) -> None:
        self.live.delete(np.array(list(self.model), np.int32))
        self.model = {}

    @precondition(lambda self: self.compaction is None)
    @rule()
    def begin_compaction(self) -> None:
        self.spec.gate.clear()
        self.compaction = self.live.compact()

    @precondition(lambda self: self.compaction is not None)
    @rule()
    def finish_compaction(self) -> None:
        assert self.compaction is not None
        assert self.live.compact() is self.compaction or self.compaction.done()
        before = self.live.generation
        self.spec.gate.set()
        assert self.compaction.result(20) >= before
        self.compaction = None

    @rule(seed=st.integers(0, 99), k=st.integers(1, 40), bits=st.integers(0, 2**33 - 1), filtered=st.booleans())
    def search(self, seed: int, k: int, bits: int, filtered: bool) -> None:
        queries = vectors_of(seed, 3)
        allowed = np.array([bits >> i & 1 for i in range(25)], bool) if filtered else None
        found, wanted = self.live.search(queries, k, allowed), expected(self.model, queries, k, allowed)
        assert found.rows.tolist() == wanted.rows.tolist()
        assert found.scores.tolist() == wanted.scores.tolist()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if hasattr(self, "live"):
            assert len(self.live) == len(self.model)
            rows, vectors = self.live.snapshot()
            assert rows.tolist() == sorted(self.model)
            assert all((self.model[row] == vector).all() for row, vector in zip(rows.tolist(), vectors, strict=True))

    def teardown(self) -> None:
        if hasattr(self, "live"):
            self.spec.gate.set()


LiveMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
test_live_index_is_a_set = LiveMachine.TestCase


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("spec", [Exact(), IVFFlat(nlist=4, nprobe=4)], ids=repr)
def test_searches_are_right_while_writers_and_compactions_run(spec: IndexSpec) -> None:
    """Rows 0…99 never change and win every search; row 100 + w is replaced by writer w again and again, its vector
    saying which writing it was; rows above 200 come and go. Each answer must be one moment's truth."""
    fixed = np.zeros((100, 4), np.float32)
    fixed[:, 0] = 1000 - np.arange(100)
    live = Live(spec, np.r_[fixed, np.zeros((2, 4), np.float32)], compact_at=3)
    query = np.array([[1, 1, 0, 0]], np.float32)
    written, done, faults = [0, 0], threading.Event(), []

    def write(writer: int) -> None:
        for turn in range(1, 150):
            live.put(np.array([100 + writer], np.int32), np.array([[0, turn, 0, 0]], np.float32))
            written[writer] = turn
            row = np.array([200 + 1000 * writer + turn], np.int32)
            live.put(row, np.array([[0, 0.5, 0, 0]], np.float32))
            live.delete(row)
            if row in live.search(query, 400).rows:
                faults.append(f"row {row} was deleted and came back")

    def read() -> None:
        seen = [0, 0]
        while not done.is_set():
            least = list(written)
            hits = live.search(query, 104)
            rows, scores = hits.rows[0], hits.scores[0]
            if sorted(rows[(rows >= 0) & (rows < 100)].tolist()) != list(range(100)):
                faults.append(f"fixed rows are missing: {rows.tolist()}")
            for writer in (0, 1):
                at = np.flatnonzero(rows == 100 + writer)
                if len(at) != 1:
                    faults.append(f"row {100 + writer} is there {len(at)} times")
                elif scores[at[0]] < max(least[writer], seen[writer]):
                    faults.append(f"row {100 + writer} went back to writing {scores[at[0]]}")
                else:
                    seen[writer] = int(scores[at[0]])

    writers = [threading.Thread(target=write, args=(writer,)) for writer in (0, 1)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert faults == []
    live.compact().result(20)
    assert live.generation >= 2
    rows, _ = live.snapshot()
    assert rows.tolist() == list(range(102))


def test_a_compaction_folds_everything_in() -> None:
    live = Live(Exact(), vectors_of(1, 50))
    live.put(np.array([7, 90], np.int32), vectors_of(2, 2))
    live.delete(np.array([3], np.int32))
    assert (live.changed, live.generation, len(live)) == (4, 0, 50)
    before = live.search(vectors_of(3, 5), 60)
    assert live.compact().result(20) == 1
    after = live.search(vectors_of(3, 5), 60)
    assert (live.changed, live.generation, len(live)) == (0, 1, 50)
    assert (before.rows == after.rows).all()
    assert (before.scores == after.scores).all()


def test_enough_writes_start_a_compaction() -> None:
    gate = Gated()
    gate.gate.set()
    live = Live(gate, vectors_of(1, 50), compact_at=10)
    live.put(np.arange(100, 109, dtype=np.int32), vectors_of(2, 9))
    assert live.changed == 9
    gate.gate.clear()
    live.delete(np.array([0], np.int32))
    running = live.compact()
    assert not running.done()
    gate.gate.set()
    assert running.result(20) == 1
    assert live.changed == 0


def test_a_compaction_that_fails_changes_nothing_and_says_why() -> None:
    class Broken(Gated):
        def build(self, vectors: Vectors) -> Index:
            if self.gate.is_set():
                raise SearchError("no memory", where="index build")
            return Exact().build(vectors)

    spec = Broken()
    live = Live(spec, vectors_of(1, 50))
    live.put(np.array([60], np.int32), vectors_of(2, 1))
    spec.gate.set()
    with pytest.raises(SearchError, match="index build: no memory"):
        live.compact().result(20)
    assert (live.generation, live.changed, len(live)) == (0, 1, 51)
    spec.gate.clear()
    assert live.compact().result(20) == 1


def test_an_approximate_main_index_is_searched_past_its_dead_rows() -> None:
    random = np.random.default_rng(5)
    vectors = random.standard_normal((4000, 16)).astype(np.float32)
    live = Live(IVFPQ(nlist=8, nprobe=8), vectors)
    query = vectors[:1]
    best = Exact().build(vectors).search(query, 500).rows[0]
    live.delete(best[:300])
    found = live.search(query, 100)
    assert (found.rows != UNKNOWN).all()
    assert not np.isin(found.rows, best[:300]).any()
    assert np.isin(best[300:400], found.rows).mean() >= 0.9


def test_newer_rows_than_the_filter_knows_are_not_allowed() -> None:
    live = Live(Exact(), vectors_of(1, 10))
    allowed = np.ones(10, bool)
    live.put(np.array([10, 11], np.int32), 100 * np.ones((2, DIM), np.float32))
    hits = live.search(np.ones((1, DIM), np.float32), 12, allowed)
    assert sorted(hits.rows[0, :10].tolist()) == list(range(10))
    assert (hits.rows[0, 10:] == UNKNOWN).all()
    assert (live.search(np.ones((1, DIM), np.float32), 2, np.ones(0, bool)).rows == UNKNOWN).all()


def rows_of(*rows: int) -> Rows:
    return np.array(rows, np.int32)


@pytest.mark.parametrize(
    ("rows", "vectors", "message"),
    [
        (rows_of(1, 1), vectors_of(1, 2), "row 1 is given twice"),
        (rows_of(-1), vectors_of(1, 1), "row -1; expected at least 0"),
        (rows_of(1, 2), vectors_of(1, 1), r"rows of shape \[2\]; expected \[1\], one a vector"),
        (rows_of(1), vectors_of(1, 1, dim=5), "vectors of width 5; expected 4"),
        (rows_of(1), np.full((1, DIM), np.nan, np.float32), "row 0 has a number that is not finite"),
    ],
)
def test_a_bad_write_is_refused_and_changes_nothing(rows: Rows, vectors: Vectors, message: str) -> None:
    live = Live(Exact(), vectors_of(1, 10))
    with pytest.raises(SearchError, match=message):
        live.put(rows, vectors)
    assert live.changed == 0


def test_deleting_what_is_not_there_is_nothing() -> None:
    live = Live(Exact(), vectors_of(1, 10))
    live.delete(rows_of(77, 88))
    live.put(rows_of(), np.empty((0, DIM), np.float32))
    assert (live.changed, len(live)) == (0, 10)


def test_rows_of_ones_own_in_any_order() -> None:
    vectors = vectors_of(1, 4)
    live = Live(Exact(), vectors, rows_of(40, 10, 30, 20))
    for row, vector in zip((40, 10, 30, 20), vectors, strict=True):
        hits = live.search(vector[None], 4)
        assert float(hits.scores[hits.rows == row][0]) == float(vector @ vector)


@pytest.mark.parametrize("spec", [Milvus(), Qdrant()], ids=lambda one: type(one).__name__)
def test_an_index_in_a_server_is_refused_before_anything_is_built_there(spec: IndexSpec) -> None:
    """A collection for each compaction, and no release to retire it with."""
    with pytest.raises(SearchError, match=rf"live index: {type(spec).__name__} lives in a server.*Publish it in a rel"):
        Live(spec, vectors_of(1, 10))
