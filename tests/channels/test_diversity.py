"""Greedy diversity against the formula as it stands in the paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin.channels.diversity import Diversity, diverse
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import RequestError
from zhiyin.stores.base import Card


def slow(scores: list[int], categories: list[int], k: int, weight: int) -> list[int]:
    """One candidate at a time: f(u, i) + λ Σ over the chosen k of [cate(i) ≠ cate(k)]."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        left = [i for i in range(len(scores)) if i not in chosen]
        values = []
        for i in left:
            others = sum(categories[i] == UNKNOWN or categories[i] != categories[j] for j in chosen)
            values.append(scores[i] + weight * others)
        chosen.append(left[values.index(max(values))])
    return chosen


candidates = st.lists(st.tuples(st.integers(-20, 20), st.integers(-1, 3)), max_size=12)


@given(candidates, st.integers(1, 15), st.integers(0, 30))
def test_it_is_the_greedy_sum(found: list[tuple[int, int]], k: int, weight: int) -> None:
    """Whole numbers, so that sums are exact and ties are ties."""
    scores, categories = [score for score, _ in found], [category for _, category in found]
    chosen = diverse(np.array(scores, np.float32), np.array(categories, np.int32), k, weight)
    assert chosen.tolist() == slow(scores, categories, k, weight)


def test_without_weight_the_order_is_by_score_and_with_much_of_it_categories_take_turns() -> None:
    scores, categories = np.array([9, 8, 7, 3, 2, 1], np.float32), np.array([0, 0, 0, 1, 1, 2], np.int32)
    assert diverse(scores, categories, 6, 0.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert diverse(scores, categories, 6, 100.0).tolist() == [0, 3, 5, 1, 4, 2]
    assert diverse(scores, categories, 2, 7.0).tolist() == [0, 3]


def test_a_missing_category_differs_from_every_other() -> None:
    cards: list[Card | None] = [{"kind": "a"}, {"kind": "a"}, None, {"title": "no kind"}, {"kind": "b"}]
    chosen = Diversity(100.0, "kind").places([5.0, 4.0, 3.0, 2.0, 1.0], cards, 5)
    assert chosen.tolist() == [0, 2, 3, 4, 1]


def test_cards_that_cannot_tell_are_refused() -> None:
    with pytest.raises(RequestError, match=r"^\.by: no candidate's card has the field 'genre'"):
        Diversity(1.0, "genre").places([2.0, 1.0], [{"kind": "a"}, None], 2)
    assert Diversity(1.0, "genre").places([], [], 2).tolist() == []


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(RequestError, match=r"^\.weight: .*; expected a number of at least 0"):
        Diversity(weight, "kind")
    with pytest.raises(RequestError, match=r"^\.by: ''; expected the name of a field"):
        Diversity(1.0, "")
