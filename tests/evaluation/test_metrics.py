"""Every metric against a slow, plain version written from its definition."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.evaluation import lists
from zhiyin.evaluation.channels import increments
from zhiyin.evaluation.metrics import METRICS
from zhiyin.evaluation.targets import Targets

CATALOGUE = 9
TRAITS = np.random.default_rng(0).normal(size=(CATALOGUE, 3)).astype(np.float32)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]]]:
    """Candidate lists (some end in UNKNOWN) and targets of a few queries; UNKNOWN may be a target."""
    queries, k = draw(st.integers(1, 5)), draw(st.integers(1, CATALOGUE))
    found, wanted = [], []
    for _ in range(queries):
        row = draw(st.permutations(range(CATALOGUE)))[:k]
        real = draw(st.integers(0, k))
        found.append(list(row[:real]) + [UNKNOWN] * (k - real))
        wanted.append(draw(st.sets(st.integers(UNKNOWN, CATALOGUE - 1), min_size=1)))
    return found, wanted


def flat(wanted: list[set[int]]) -> Targets:
    pairs = sorted((query, row) for query, rows in enumerate(wanted) for row in rows)
    return Targets(len(wanted), np.array([q for q, _ in pairs]), np.array([r for _, r in pairs], np.int32))


def rows(found: list[list[int]]) -> np.ndarray:
    return np.array(found, np.int32)


def right(row: list[int], wanted: set[int]) -> list[int]:
    """1 where the candidate is a target, in order."""
    return [int(item in wanted and item != UNKNOWN) for item in row]


def plain_ndcg(row: list[int], wanted: set[int]) -> float:
    gained = sum(1 / math.log2(place + 1) for place, hit in enumerate(right(row, wanted), 1) if hit)
    return gained / sum(1 / math.log2(place + 1) for place in range(1, min(len(wanted), len(row)) + 1))


def plain_mrr(row: list[int], wanted: set[int]) -> float:
    return next((1 / place for place, hit in enumerate(right(row, wanted), 1) if hit), 0.0)


def plain_map(row: list[int], wanted: set[int]) -> float:
    hits = right(row, wanted)
    return sum(sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit) / min(len(wanted), len(row))


PLAIN: dict[str, Callable[[list[int], set[int]], float]] = {
    "recall": lambda row, wanted: sum(right(row, wanted)) / len(wanted),
    "precision": lambda row, wanted: sum(right(row, wanted)) / len(row),
    "hit": lambda row, wanted: float(any(right(row, wanted))),
    "ndcg": plain_ndcg,
    "mrr": plain_mrr,
    "map": plain_map,
}


def test_every_metric_has_its_oracle() -> None:
    assert PLAIN.keys() == METRICS.keys()


@pytest.mark.parametrize("name", PLAIN)
@given(answers())
@settings(max_examples=60, deadline=None)
def test_metrics_of_hits(name: str, drawn: tuple[list[list[int]], list[set[int]]]) -> None:
    found, wanted = drawn
    targets = flat(wanted)
    hits = targets.hits(rows(found))
    assert hits.tolist() == [[bool(h) for h in right(row, one)] for row, one in zip(found, wanted, strict=True)]
    values = METRICS[name](hits, targets.counts)
    np.testing.assert_allclose(values, [PLAIN[name](r, w) for r, w in zip(found, wanted, strict=True)], rtol=1e-12)


def test_metrics_by_hand() -> None:
    hits, targets = np.array([[False, True, False, True]]), np.array([3])
    found = {name: float(metric(hits, targets)[0]) for name, metric in METRICS.items()}
    expected = {"recall": 2 / 3, "precision": 0.5, "hit": 1, "mrr": 0.5, "map": (1 / 2 + 2 / 4) / 3}
    expected["ndcg"] = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))
    assert found == pytest.approx(expected)


@given(answers(), st.lists(st.integers(0, 20), min_size=CATALOGUE, max_size=CATALOGUE))
@settings(max_examples=100, deadline=None)
def test_what_the_lists_are_like(drawn: tuple[list[list[int]], list[set[int]]], counts: list[int]) -> None:
    found, wanted = drawn
    popularity = np.array(counts)
    offered = [item for row in found for item in row if item != UNKNOWN]
    shown = [offered.count(item) for item in range(CATALOGUE)]
    assert lists.coverage(rows(found), CATALOGUE) == pytest.approx(len(set(offered)) / CATALOGUE)
    gaps = sum(abs(a - b) for a in shown for b in shown)
    expected = gaps / (2 * CATALOGUE * sum(shown)) if offered else 0.0  # half the relative mean absolute difference
    assert lists.gini(rows(found), CATALOGUE) == pytest.approx(expected)
    bits = [-math.log2((counts[item] + 1) / (sum(counts) + CATALOGUE)) for item in offered]
    assert lists.novelty(rows(found), popularity) == pytest.approx(np.mean(bits) if bits else 0)
    chosen = [counts[item] for one in wanted for item in one if item != UNKNOWN]
    lift = np.mean([counts[item] for item in offered]) / np.mean(chosen) if offered and sum(chosen) else 0
    assert lists.popularity_lift(rows(found), flat(wanted).rows, popularity) == pytest.approx(lift)


@given(answers())
@settings(max_examples=60, deadline=None)
def test_diversity_is_the_mean_over_pairs(drawn: tuple[list[list[int]], list[set[int]]]) -> None:
    means = []
    for row in drawn[0]:
        real = [TRAITS[item] for item in row if item != UNKNOWN]
        pairs = [1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(real, 2)]
        means += [np.mean(pairs)] if pairs else []
    found = lists.diversity(rows(drawn[0]), TRAITS)
    assert found == pytest.approx(float(np.mean(means)) if means else 0, abs=1e-5)


def test_one_category_has_no_diversity_and_different_ones_have_all_of_it() -> None:
    traits = lists.one_hot(np.array(["a", "a", "b", "c"], object))
    assert lists.diversity(np.array([[0, 1]]), traits) == pytest.approx(0)
    assert lists.diversity(np.array([[0, 2, 3]]), traits) == pytest.approx(1)
    tags = np.empty(3, object)
    tags[:] = [["x", "y"], ["x"], None]
    np.testing.assert_array_equal(lists.one_hot(tags), [[1, 1], [1, 0], [0, 0]])


def test_popularity_groups_share_the_training_events() -> None:
    popularity = (
        np.random.default_rng(0).permutation(np.r_[np.full(500, 2), np.full(100, 10), np.zeros(50)]).astype(int)
    )
    groups = lists.popularity_groups(popularity)
    shares = np.bincount(groups, popularity, minlength=lists.GROUPS) / popularity.sum()
    np.testing.assert_allclose(shares, 0.1, atol=0.01)
    assert (np.array([popularity[groups == g].mean() for g in range(lists.GROUPS)]) >= 0).all()
    assert popularity[groups == 0].min() >= popularity[groups == 9].max()
    assert (groups[popularity == 0] == lists.GROUPS - 1).all()
    assert lists.popularity_shares(np.flatnonzero(groups == 3).astype(np.int32), groups)[3] == 1


@given(answers(), st.permutations(range(CATALOGUE)), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_increments_of_channels(drawn: tuple[list[list[int]], list[set[int]]], other: list[int], k: int) -> None:
    found, wanted = drawn
    channels = {"one": rows(found), "two": np.tile(np.array(other[:k], np.int32), (len(found), 1))}
    measured = increments(channels, flat(wanted))

    def mean_recall(*names: str) -> float:
        total = 0.0
        for at, one in enumerate(wanted):
            offered = {int(item) for name in names for item in channels[name][at]} - {UNKNOWN}
            total += len(offered & one) / len(one)
        return total / len(wanted)

    assert measured.alone == pytest.approx({"one": mean_recall("one"), "two": mean_recall("two")})
    assert measured.union == pytest.approx(mean_recall("one", "two"))
    assert measured.adds["one"] == pytest.approx(mean_recall("one", "two") - mean_recall("two"))
    assert measured.adds["two"] == pytest.approx(mean_recall("one", "two") - mean_recall("one"))


def test_a_channel_on_its_own_adds_all_it_finds() -> None:
    measured = increments({"one": rows([[3, 1]])}, flat([{1, 2}]))
    assert (measured.union, measured.adds["one"]) == (0.5, 0.5)
