"""Hits that are scored again: neither their number nor the order in which they were found leaves a trace."""

from typing import Any

import numpy as np
import pytest

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.indexes import filtering, scann
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.filtering import refined
from zhiyin.indexes.scann import SPARE, ScaNN

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.standard_normal((400, 23)).astype(np.float32)
QUERIES = RANDOM.standard_normal((300, 23)).astype(np.float32)


def test_a_hit_has_the_same_score_wherever_it_was_found() -> None:
    rows = np.tile(RANDOM.permutation(400)[:97], (300, 1))
    scores, found = refined(QUERIES, rows, VECTORS, 20)
    for place, query in enumerate(QUERIES[:40]):
        mixed = RANDOM.permutation(rows[place])[None, :]
        alone, which = refined(query[None], mixed, VECTORS, 20)
        assert (alone == scores[place]).all()
        assert (which == found[place]).all()
        np.testing.assert_allclose(alone[0], VECTORS[which[0]] @ query, rtol=1e-4, atol=1e-5)


def test_blocks_equal_scores_and_missing_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.repeat(VECTORS[:50], 4, axis=0)
    rows = np.array([RANDOM.permutation(200) for _ in QUERIES])
    rows[:, :3] = UNKNOWN
    whole = refined(QUERIES, rows, vectors, 30)
    monkeypatch.setattr(filtering, "GATHERED", 1)
    one_by_one = refined(QUERIES, rows, vectors, 30)
    assert (whole[0] == one_by_one[0]).all()
    assert (whole[1] == one_by_one[1]).all()
    assert (whole[1] != UNKNOWN).all()
    ties = whole[0][:, 1:] == whole[0][:, :-1]
    assert ties.any()
    assert (np.diff(whole[1])[ties] > 0).all()
    scores, missing = refined(QUERIES[:1], np.array([[UNKNOWN, 7, UNKNOWN]]), vectors, 3)
    assert missing[0].tolist() == [7, UNKNOWN, UNKNOWN]
    assert np.isneginf(scores[0, 1:]).all()


class Noisy:
    """ScaNN as it is: its scores differ in the last digit from call to call, and neighbours change places."""

    def search_batched(self, queries: Vectors, final_num_neighbors: int, **_: object) -> tuple[Any, Vectors]:
        exact = queries @ VECTORS.T
        rounded = exact * (1 + 2e-7 * np.random.default_rng().integers(-1, 2, exact.shape).astype(np.float32))
        rows = np.argsort(-rounded, axis=1)[:, :final_num_neighbors]
        return rows.astype(np.uint32), np.take_along_axis(rounded, rows, 1)

    search_batched_parallel = search_batched


def test_the_last_digits_of_scanns_own_scores_change_nothing() -> None:
    index = ScaNN(leaves=4, searched=4).build(VECTORS)
    noisy = scann.ScaNNIndex(Noisy(), index._exact, ScaNN())
    crowd = noisy.search(QUERIES, 10)
    exact = index._exact.search(QUERIES, 10)
    assert (crowd.rows == exact.rows).all()
    for place in range(50):
        alone = noisy.search(QUERIES[place : place + 1], 10)
        assert (alone.rows == crowd.rows[place]).all()
        assert (alone.scores == crowd.scores[place]).all()
    assert noisy.search(QUERIES[:2], 400).rows.shape == (2, 400)
    assert SPARE > 0
