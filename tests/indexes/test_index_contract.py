"""What every index promises, run on every backend found in the package."""

import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from zhiyin import spec
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Hits, Index, IndexSpec, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.truth import truth as truth_of

SIZE, DIM, QUERIES = 3000, 16, 40
FLOOR = 0.85
"""overlap@10 that every example reaches on easy data; how good a backend can be is tuning's business."""

SPECS: list[IndexSpec] = [one for one in spec.examples("zhiyin.indexes") if isinstance(one, IndexSpec)]
SHARES = [1.0, 0.1, 0.01, 0.001]

Hosted = Callable[[IndexSpec], IndexSpec]


def clustered(count: int, seed: int, dim: int = DIM) -> Vectors:
    """Unit vectors round 30 centres, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((30, dim))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, 30, count)] + 0.4 * random.standard_normal((count, dim))
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


VECTORS, USERS = clustered(SIZE, seed=1), clustered(QUERIES, seed=2)


def truth(queries: Vectors, vectors: Vectors, k: int, allowed: Allowed | None = None) -> NDArray[np.int64]:
    """[n, min(k, allowed)] by plain numpy in double precision; equal scores by row."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    passing = len(vectors) if allowed is None else int(allowed.sum())
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(k, passing)]


def recall(hits: Hits, wanted: NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(row, found).mean() for row, found in zip(wanted, hits.rows, strict=True)]))


def same(one: Hits, other: Hits) -> bool:
    return bool((one.rows == other.rows).all() and (one.scores == other.scores).all())


@pytest.fixture(scope="module", params=SPECS, ids=repr)
def backend(request: pytest.FixtureRequest, hosted: Hosted) -> IndexSpec:
    return hosted(request.param)


@pytest.fixture(scope="module")
def index(backend: IndexSpec) -> Index:
    return backend.build(VECTORS)


def test_the_walk_finds_every_backend() -> None:
    names = {type(one).__name__ for one in SPECS}
    assert names >= {"Exact", "HNSW", "IVFFlat", "IVFSQ8", "IVFPQ", "ScaNN", "Milvus", "Qdrant"}


def test_most_of_the_true_top_k_is_found(index: Index) -> None:
    assert len(index) == SIZE
    assert recall(index.search(USERS, 10), truth(USERS, VECTORS, 10)) >= FLOOR


def test_scores_are_the_inner_products_of_their_rows_and_descend(index: Index) -> None:
    hits = index.search(USERS, 50)
    assert (hits.rows.dtype.name, hits.scores.dtype.name, hits.rows.shape) == ("int32", "float32", (QUERIES, 50))
    for query, rows, scores in zip(USERS, hits.rows, hits.scores, strict=True):
        real = rows != UNKNOWN
        np.testing.assert_allclose(scores[real], VECTORS[rows[real]] @ query, rtol=1e-5, atol=1e-6)
        assert len(set(rows[real])) == real.sum()
    assert (np.diff(np.where(np.isneginf(hits.scores), -1e9, hits.scores)) <= 0).all()


@pytest.mark.parametrize("share", SHARES)
def test_a_filter_of_any_selectivity_gives_the_true_filtered_top_k(index: Index, share: float) -> None:
    allowed = np.zeros(SIZE, bool)
    allowed[np.random.default_rng(3).permutation(SIZE)[: round(SIZE * share)]] = True
    hits, wanted = index.search(USERS, 10, allowed), truth(USERS, VECTORS, 10, allowed)
    found = hits.rows != UNKNOWN
    assert allowed[hits.rows[found]].all()
    assert (found.sum(1) == wanted.shape[1]).all()
    assert np.isneginf(hits.scores[~found]).all()
    few = allowed.sum() <= 0.02 * SIZE
    assert recall(hits, wanted) >= (1.0 if few else 0.95 if share < 1 else FLOOR)


def test_a_filter_of_one_row_finds_it_and_one_that_nothing_passes_finds_nothing(index: Index) -> None:
    allowed = np.zeros(SIZE, bool)
    nothing = index.search(USERS, 3, allowed)
    assert (nothing.rows == UNKNOWN).all()
    assert np.isneginf(nothing.scores).all()
    allowed[1234] = True
    one = index.search(USERS, 3, allowed)
    assert (one.rows == [1234, UNKNOWN, UNKNOWN]).all()
    np.testing.assert_allclose(one.scores[:, 0], USERS @ VECTORS[1234], rtol=1e-5, atol=1e-6)


def test_a_filter_opposite_to_the_query_still_fills_k(index: Index) -> None:
    """The rows that pass are those the query likes least: what an index looks at first is all hidden."""
    worst = np.argsort(VECTORS @ USERS[0])[: SIZE // 4]
    allowed = np.zeros(SIZE, bool)
    allowed[worst] = True
    hits = index.search(USERS[:1], 20, allowed)
    assert allowed[hits.rows].all()
    assert recall(hits, truth(USERS[:1], VECTORS, 20, allowed)) >= 0.95


def test_k_above_the_size_is_padded(backend: IndexSpec) -> None:
    hits = backend.build(VECTORS[:37]).search(USERS, 64)
    assert hits.rows.shape == (QUERIES, 64)
    assert (np.sort(hits.rows[:, :37]) == np.arange(37)).all()
    assert (hits.rows[:, 37:] == UNKNOWN).all()
    assert np.isneginf(hits.scores[:, 37:]).all()


def test_no_answer_is_short_while_there_are_more_rows(index: Index) -> None:
    assert (index.search(USERS[:3], 2900).rows != UNKNOWN).all()


def test_no_queries_no_answers(index: Index) -> None:
    for allowed in (None, np.ones(SIZE, bool), np.zeros(SIZE, bool)):
        assert index.search(np.empty((0, DIM), np.float32), 5, allowed).rows.shape == (0, 5)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(index: Index, k: int) -> None:
    with pytest.raises(SearchError, match=f"k = {k}; expected at least 1"):
        index.search(USERS, k)


def test_queries_of_another_width_are_refused(index: Index) -> None:
    with pytest.raises(SearchError, match=r"queries of shape \[40, 15\]; expected \[n, 16\]"):
        index.search(np.ascontiguousarray(USERS[:, :15]), 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_query_that_is_not_finite_is_refused_by_its_number(index: Index, bad: float) -> None:
    queries = USERS.copy()
    queries[7, 3] = bad
    with pytest.raises(SearchError, match="query 7 has a number that is not finite"):
        index.search(queries, 5)


def test_a_filter_of_another_length_or_type_is_refused(index: Index) -> None:
    with pytest.raises(SearchError, match=r"allowed of bool \[2999\]; expected bool \[3000\]"):
        index.search(USERS, 5, np.ones(SIZE - 1, bool))
    with pytest.raises(SearchError, match=r"allowed of int64 \[3000\]"):
        index.search(USERS, 5, np.ones(SIZE, np.int64))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_vectors_that_are_not_finite_are_refused_by_row(backend: IndexSpec, bad: float) -> None:
    vectors = VECTORS.copy()
    vectors[77, 3] = bad
    with pytest.raises(SearchError, match=r"row 77 has a number that is not finite.*\(1 such rows\).*diverged"):
        backend.build(vectors)


@pytest.mark.parametrize(
    "bad", [VECTORS.astype(np.float64), VECTORS[0], VECTORS[:0], VECTORS[:, :0]], ids=["double", "flat", "none", "thin"]
)
def test_vectors_of_another_type_or_shape_are_refused(backend: IndexSpec, bad: Vectors) -> None:
    with pytest.raises(SearchError, match=r"vectors of float.*expected float32 \[m, d\], m ≥ 1"):
        backend.build(bad)


def test_zero_vectors_and_zero_queries_score_zero(backend: IndexSpec) -> None:
    vectors = VECTORS[:600].copy()
    vectors[::2] = 0
    index = backend.build(vectors)
    hits = index.search(np.zeros((2, DIM), np.float32), 5)
    assert (hits.scores == 0).all()
    assert recall(index.search(USERS, 5), truth(USERS, vectors, 5)) >= FLOOR
    assert (backend.build(np.zeros((40, DIM), np.float32)).search(USERS, 5).scores == 0).all()


@pytest.mark.parametrize("size", [1, 2, 17, 300])
def test_a_small_catalogue_is_searched_whole(backend: IndexSpec, size: int) -> None:
    index = backend.build(VECTORS[:size])
    hits = index.search(USERS, 1)
    assert recall(hits, truth(USERS, VECTORS[:size], 1)) >= 0.9
    assert len(index) == size


def test_an_odd_width_works(backend: IndexSpec) -> None:
    vectors, users = clustered(500, 1, dim=7), clustered(QUERIES, 2, dim=7)
    assert recall(backend.build(vectors).search(users, 10), truth(users, vectors, 10)) >= 0.75


def test_duplicates_are_rows_like_others(backend: IndexSpec) -> None:
    vectors = np.repeat(VECTORS[:200], 5, axis=0)
    hits = backend.build(vectors).search(VECTORS[:40], 5)
    assert np.mean([(row // 5 == place).mean() for place, row in enumerate(hits.rows)]) >= 0.95
    assert all(len(set(row)) == 5 for row in hits.rows)


def test_long_and_short_vectors_are_ranked_by_inner_product(backend: IndexSpec) -> None:
    vectors = VECTORS * np.geomspace(0.1, 10, SIZE, dtype=np.float32)[:, None]
    assert recall(backend.build(vectors).search(USERS, 10), truth(USERS, vectors, 10)) >= 0.6


def test_one_query_answers_as_in_a_crowd(index: Index) -> None:
    for allowed in (None, np.arange(SIZE) % 3 > 0, np.arange(SIZE) % 100 == 0):
        crowd = index.search(np.tile(USERS, (10, 1)), 10, allowed)
        for place, query in enumerate(USERS):
            alone = index.search(query[None], 10, allowed)
            assert same(alone, Hits(crowd.rows[place : place + 1], crowd.scores[place : place + 1]))


def test_many_threads_at_once_answer_as_one(index: Index) -> None:
    masks = [None, np.arange(SIZE) % 2 > 0, np.arange(SIZE) % 200 == 0]
    asked = [(USERS[i : i + 3], 5 + 7 * (i % 4), masks[i % 3]) for i in range(37)] * 4
    alone = [index.search(*one) for one in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: index.search(*one), asked))
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_searching_changes_neither_index_nor_arguments(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "before")
    users, allowed = USERS.copy(), np.arange(SIZE) % 2 > 0
    first = index.search(users, 10)
    index.search(users, 500, allowed)
    index.search(users, 1)
    assert same(first, index.search(users, 10))
    index.save(tmp_path / "after")
    assert (users == USERS).all()
    assert (allowed == (np.arange(SIZE) % 2 > 0)).all()
    assert (tmp_path / "before").stat().st_size == (tmp_path / "after").stat().st_size


def test_a_saved_index_answers_as_before(backend: IndexSpec, index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index.bin")
    assert [p.name for p in tmp_path.iterdir()] == ["index.bin"]
    np.save(tmp_path / "vectors.npy", VECTORS)
    for vectors in (VECTORS, np.load(tmp_path / "vectors.npy", mmap_mode="r")):
        opened = backend.load(tmp_path / "index.bin", vectors)
        for allowed in (None, np.arange(SIZE) % 2 > 0, np.arange(SIZE) % 200 == 0):
            assert same(opened.search(USERS, 10, allowed), index.search(USERS, 10, allowed))


def test_saving_over_a_file_is_refused(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "index.bin"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"index\.bin"):
        index.save(path)
    assert path.read_text() == "mine"


def test_a_full_disk_is_an_error_of_the_system(index: Index, tmp_path: Path) -> None:
    """Which publish puts into words; the system refuses longer files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large|ScaNN could not write its index: .*Failed to write"):
            index.save(tmp_path / "index.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_index_of_other_vectors_is_refused_by_name(backend: IndexSpec, index: Index, tmp_path: Path) -> None:
    path = tmp_path / "index.bin"
    index.save(path)
    for other in (VECTORS[:-1], np.ascontiguousarray(VECTORS[:, :-1])):
        with pytest.raises(SearchError, match=r"index\.bin: not this backend's index"):
            backend.load(path, other)


def test_a_truncated_or_foreign_file_is_refused_by_name(backend: IndexSpec, index: Index, tmp_path: Path) -> None:
    path, cut = tmp_path / "index.bin", tmp_path / "cut.bin"
    index.save(path)
    content = path.read_bytes()
    for length in (0, 3, len(content) // 3, len(content) - 9):
        cut.write_bytes(content[:length])
        with pytest.raises(SearchError, match=r"cut\.bin"):
            backend.load(cut, VECTORS)
    cut.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(SearchError, match=r"cut\.bin"):
        backend.load(cut, VECTORS)


@pytest.mark.parametrize("other", SPECS, ids=lambda one: type(one).__name__)
def test_another_backends_file_is_refused_by_name(
    backend: IndexSpec, other: IndexSpec, hosted: Hosted, tmp_path: Path
) -> None:
    if type(other) is type(backend):
        return
    path = tmp_path / "other.bin"
    hosted(other).build(VECTORS[:300]).save(path)
    with pytest.raises(SearchError, match=r"other\.bin: not this backend's index"):
        backend.load(path, VECTORS[:300])


def test_an_index_outlives_its_file(backend: IndexSpec, index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    index.save(folder / "index.bin")
    opened = backend.load(folder / "index.bin", VECTORS)
    shutil.rmtree(folder)
    assert same(opened.search(USERS, 10), index.search(USERS, 10))


def test_the_table_of_a_spec_builds_it_again(backend: IndexSpec) -> None:
    table = spec.used_table(backend, "zhiyin.indexes")
    assert spec.used_build(table, "zhiyin.indexes") == backend


def test_exact_is_exact_to_the_last_place() -> None:
    for k in (1, 10, SIZE, SIZE + 5):
        hits, wanted = Exact().build(VECTORS).search(USERS, k), truth(USERS, VECTORS, k)
        assert (hits.rows[:, :SIZE] == wanted).mean() >= 0.999


@pytest.mark.parametrize("count", [0, 1, 129, 400])
def test_the_truth_on_every_core_is_exact_searchs(count: int) -> None:
    queries = clustered(count, seed=5) if count else np.empty((0, DIM), np.float32)
    assert same(truth_of(VECTORS, queries, 20), Exact().build(VECTORS).search(queries, 20))
