"""Exact ranking: the blocked one against a plain sort, ties, seen items, and scores that are no numbers."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, LeaveLastOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.data.worlds import random_world
from zhiyin.errors import TrainingError
from zhiyin.evaluation import ranking
from zhiyin.evaluation.best import FIRST, LARGEST, Best, blocks, top_rows
from zhiyin.evaluation.ranking import VectorScorer, rank


@dataclass
class Fixed:
    """Scores [E, m], one row an event."""

    table: Tensor

    def scores(self, events: Events) -> Tensor:
        return self.table[torch.from_numpy(events)].clone()


@dataclass
class Vectors:
    """Whole-number vectors, so that every inner product is exact and many are equal."""

    table: Tensor
    items: Tensor

    def users(self, events: Events) -> Tensor:
        return self.table[torch.from_numpy(events)]

    def scores(self, events: Events) -> Tensor:
        return (self.users(events) @ self.items.T).amax(1)


def sorted_rows(scores: np.ndarray, k: int) -> Rows:
    """The slow, plain one."""
    found = np.full((len(scores), k), UNKNOWN, np.int32)
    for query, row in enumerate(scores):
        order = sorted((at for at in range(len(row)) if row[at] > -np.inf), key=lambda at: (-row[at], at))[:k]
        found[query, : len(order)] = order
    return found


def vectors(data: Prepared, interests: int, seed: int = 0) -> Vectors:
    generator = torch.Generator().manual_seed(seed)
    draw = [(len(data.events), interests, 3), (len(data.items), 3)]
    users, items = (torch.randint(-2, 3, shape, generator=generator).float() for shape in draw)
    return Vectors(users, items)


def expected(scorer: Vectors, data: Prepared, held: HeldOut, k: int, remove_seen: bool) -> Rows:
    scores = scorer.scores(held.starts).numpy()
    if remove_seen:
        for query, event in enumerate(held.starts):
            scores[query, data.events.history(int(event))] = -np.inf
    return sorted_rows(scores, k)


@given(
    st.integers(1, 6),
    st.integers(1, 2 * FIRST + 45),
    st.integers(1, 70),
    st.sampled_from([1, 3, 1000]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_best_of_blocks_are_the_best_of_all(n: int, m: int, k: int, levels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(levels, size=(n, m)).astype(np.float32)
    scores[random.random((n, m)) < 0.2] = -np.inf
    np.testing.assert_array_equal(top_rows(torch.from_numpy(scores), k), sorted_rows(scores, k))


@pytest.mark.parametrize("order", [1, -1], ids=["ascending", "descending"])
def test_scores_in_order_are_the_hardest_and_the_easiest(order: int) -> None:
    scores = np.arange(9000, dtype=np.float32)[None].repeat(2, 0)[:, ::order]
    np.testing.assert_array_equal(top_rows(torch.from_numpy(scores.copy()), 7), sorted_rows(scores, 7))


def test_the_values_are_those_of_the_rows() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).random((3, 40), np.float32))
    best = Best(3, 50)
    best.add(scores[:, :11], 0)
    best.add(scores[:, 11:], 11)
    rows, values = best.rows(), best.values()
    np.testing.assert_array_equal(np.take_along_axis(scores.numpy(), rows[:, :40], 1), values[:, :40].numpy())
    assert (rows[:, 40:] == UNKNOWN).all()
    assert torch.isneginf(values[:, 40:]).all()


@given(st.integers(1, 30_000), st.integers(1, 2000))
def test_blocks_cover_every_column_once(columns: int, k: int) -> None:
    found = blocks(columns, k)
    assert [at for start, stop in found for at in (start, stop)][1:-1:2] == [start for start, _ in found][1:]
    assert (found[0][0], found[-1][1]) == (0, columns)
    assert all(stop - start <= max(LARGEST, FIRST, k + 31) for start, stop in found)


@pytest.mark.parametrize("remove_seen", [True, False])
@pytest.mark.parametrize("interests", [1, 3])
def test_vectors_are_ranked_as_their_inner_products(
    remove_seen: bool, interests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "BLOCK_QUERIES", 7)
    data = random_world(20, 1300, 30, seed=0)
    held = LeaveLastOut().split(data.events, data.clock).test
    scorer = vectors(data, interests)
    assert isinstance(scorer, VectorScorer)
    found = rank(scorer, data, held, 40, remove_seen=remove_seen)
    np.testing.assert_array_equal(found, expected(scorer, data, held, 40, remove_seen))
    whole = rank(Fixed(scorer.scores(np.arange(len(data.events)))), data, held, 40, remove_seen=remove_seen)
    np.testing.assert_array_equal(found, whole)


def test_seen_items_are_removed_wherever_in_the_history_they_stand() -> None:
    data = random_world(5, 12, 30, seed=1)  # 30 events of 12 items: little is left
    held = LeaveLastOut().split(data.events, data.clock).test
    found = rank(vectors(data, 1), data, held, 12)
    for row, event in zip(found, held.starts, strict=True):
        left = set(range(12)) - set(data.events.history(int(event)).tolist())
        assert set(row[row != UNKNOWN].tolist()) == left
        assert (row[len(left) :] == UNKNOWN).all()


def test_an_unknown_item_in_a_history_hides_nothing() -> None:
    data = random_world(4, 9, 6, seed=2)
    held = LeaveLastOut().split(data.events, data.clock).test
    data.events.items[held.starts - 1] = UNKNOWN
    for found, event in zip(rank(vectors(data, 1), data, held, 9), held.starts, strict=True):
        history = set(data.events.history(int(event)).tolist()) - {UNKNOWN}
        assert set(found[found != UNKNOWN].tolist()) == set(range(9)) - history


def test_more_candidates_than_items_end_in_unknown() -> None:
    data = random_world(4, 9, 3, seed=0)
    held = LeaveLastOut().split(data.events, data.clock).test
    found = rank(vectors(data, 1), data, held, 30, remove_seen=False)
    assert (np.sort(found[:, :9], 1) == np.arange(9)).all()
    assert (found[:, 9:] == UNKNOWN).all()


@pytest.mark.parametrize("place", [3, 1299], ids=["in a group", "in the rest"])
def test_scores_that_are_nan_are_refused_by_name(place: int) -> None:
    data = random_world(4, 1300, 3, seed=0)
    held = LeaveLastOut().split(data.events, data.clock).test
    scores = torch.zeros(len(data.events), 1300)
    scores[int(held.starts[2]), place] = torch.nan
    with pytest.raises(TrainingError, match=r"^Fixed evaluation: there are scores that are NaN.*diverged: lower"):
        rank(Fixed(scores), data, held, 5)
    scorer = vectors(data, 1)
    scorer.items[place] = torch.nan
    with pytest.raises(TrainingError, match="^Vectors evaluation: there are scores that are NaN"):
        rank(scorer, data, held, 5)
