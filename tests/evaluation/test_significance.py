"""Intervals and paired tests: against exact answers, and on chance that is known."""

from itertools import product

import numpy as np
import pytest

from zhiyin.evaluation import significance
from zhiyin.evaluation.significance import differences, intervals, means


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    random = np.random.default_rng(0)
    values = random.normal(3, 2, (4000, 1))
    low, high = intervals(values, np.arange(4000))
    assert low[0] == pytest.approx(values.mean() - 1.96 * values.std() / np.sqrt(4000), abs=0.01)
    assert high[0] == pytest.approx(values.mean() + 1.96 * values.std() / np.sqrt(4000), abs=0.01)


def test_it_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    samples = (random.random((300, 200)) < 0.3).astype(float)  # 200 worlds of 300 users
    low, high = intervals(samples, np.arange(300))
    assert 0.90 <= ((low <= 0.3) & (high >= 0.3)).mean() <= 0.99


def test_queries_of_one_user_stay_together() -> None:
    """A hundred copies of each user's one number say no more than the number."""
    values = np.random.default_rng(2).normal(size=(50, 1))
    once = intervals(values, np.arange(50))
    often = intervals(np.repeat(values, 100, 0), np.repeat(np.arange(50), 100))
    np.testing.assert_allclose(np.concatenate(once), np.concatenate(often))


def test_a_query_without_a_part_is_left_out() -> None:
    values = np.array([[1.0, np.nan], [0.0, 4.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(means(values), [0.5, 4.0])
    low, high = intervals(np.c_[values, [np.nan] * 3], np.arange(3))
    assert (low[1], high[1]) == (4, 4)
    assert np.isnan([low[2], high[2]]).all()
    assert np.isnan(means(np.full((3, 1), np.nan))).all()


def test_blocks_and_seed_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(30, 2))
    whole = intervals(values, np.arange(30), seed=5)
    monkeypatch.setattr(significance, "BLOCK", 40)
    np.testing.assert_allclose(np.stack(intervals(values, np.arange(30), seed=5)), np.stack(whole), rtol=1e-12)
    assert not np.allclose(np.stack(intervals(values, np.arange(30), seed=6)), np.stack(whole))


def test_the_permutation_test_is_near_the_exact_one() -> None:
    """All 2¹⁰ ways to flip the signs, counted."""
    gaps = np.random.default_rng(4).normal(0.4, 1, 10)
    sums = [abs(sum(s * g for s, g in zip(signs, gaps, strict=True))) for signs in product((1, -1), repeat=10)]
    exact = np.mean([total >= abs(gaps.sum()) - 1e-12 for total in sums])
    zeros = np.zeros((10, 1))
    assert differences(zeros, gaps[:, None], np.arange(10))[0].p == pytest.approx(exact, abs=0.02)


def test_chance_is_called_significant_as_rarely_as_it_should_be() -> None:
    random = np.random.default_rng(5)
    first, second = random.random((80, 300)), random.random((80, 300))
    found = np.array([one.p for one in differences(first, second, np.arange(80))])
    assert 0.02 <= (found < 0.05).mean() <= 0.09


def test_a_true_difference_is_found_and_two_equal_runs_do_not_differ() -> None:
    random = np.random.default_rng(6)
    first = random.random((500, 1))
    better = differences(first, first + 0.05 + random.normal(0, 0.1, (500, 1)), np.arange(500))[0]
    assert better.p < 0.001
    assert better.low > 0
    assert better.difference == pytest.approx(better.second - better.first)
    same = differences(first, first, np.arange(500))[0]
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
