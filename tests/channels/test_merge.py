"""Every way to make one list of several, against the formula done slowly."""

from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin import spec
from zhiyin.channels.base import Found
from zhiyin.channels.merge import RRF, Calibrated, Merge, Quota, RoundRobin, Source, merged
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError

MERGES = [one for one in spec.examples("zhiyin.channels") if isinstance(one, Merge)]
NAMES = ("deep", "fresh", "popular")

Lists = dict[str, list[tuple[int, float]]]


@st.composite
def lists(draw: st.DrawFn) -> Lists:
    """Up to three channels' rows with their scores, descending."""
    found = {}
    for name in NAMES[: draw(st.integers(1, 3))]:
        rows = draw(st.lists(st.integers(0, 15), unique=True, max_size=10))
        scores = sorted(draw(st.lists(st.integers(-20, 20), min_size=len(rows), max_size=len(rows))), reverse=True)
        found[name] = list(zip(rows, map(float, scores), strict=True))
    return found


def as_found(one: list[tuple[int, float]], interest: int = UNKNOWN) -> Found:
    rows, scores = [row for row, _ in one], [score for _, score in one]
    return Found(np.array(rows, np.int32), np.array(scores, np.float32), np.full(len(rows), interest, np.int32))


def merge(how: Merge, found: Lists, k: int) -> tuple[list[int], list[float]]:
    rows, scores = how.merge({name: as_found(one) for name, one in found.items()}, k)
    return rows.tolist(), scores.tolist()


def test_there_are_four() -> None:
    assert {type(one) for one in MERGES} == {RRF, Calibrated, RoundRobin, Quota}


@pytest.mark.parametrize("how", MERGES, ids=repr)
@given(found=lists(), k=st.integers(1, 20))
def test_each_gives_each_row_once_and_as_many_as_there_are(how: Merge, found: Lists, k: int) -> None:
    rows, scores = merge(how, found, k)
    everything = {row for one in found.values() for row, _ in one}
    assert len(rows) == len(set(rows)) == min(k, len(everything))
    assert set(rows) <= everything
    assert scores == sorted(scores, reverse=True)
    assert rows == merge(how, found, 20)[0][:k], "a longer list begins with the shorter one"


@pytest.mark.parametrize("how", MERGES, ids=repr)
def test_one_channel_alone_keeps_its_order_and_of_equal_ones_the_earlier_channel_comes_first(how: Merge) -> None:
    alone = [(5, 3.0), (2, 2.0), (9, 1.0), (1, 0.0)]
    assert merge(how, {"deep": alone}, 3)[0] == [5, 2, 9]
    assert merge(how, {"deep": [(1, 1.0)], "fresh": [(2, 9.0)]}, 2)[0] == [1, 2]


@given(lists(), st.integers(0, 60))
def test_rrf_is_the_sum_over_ranks(found: Lists, constant: int) -> None:
    worth: dict[int, float] = {}
    for one in found.values():
        for rank, (row, _) in enumerate(one, 1):
            worth[row] = worth.get(row, 0.0) + 1 / (constant + rank)
    rows, scores = merge(RRF(constant), found, 50)
    np.testing.assert_allclose(scores, [worth[row] for row in rows], rtol=1e-6)


@given(lists())
def test_calibrated_is_the_sum_of_z_scores_and_what_was_not_found_is_one_below_the_last(found: Lists) -> None:
    every = {row for one in found.values() for row, _ in one}
    worth = dict.fromkeys(every, 0.0)
    for one in found.values():
        scores = [score for _, score in one]
        sd = pstdev(scores) if scores else 0.0
        z = {row: max(-3.0, min(3.0, (score - fmean(scores)) / sd)) if sd else 0.0 for row, score in one}
        for row in every if z else ():
            worth[row] += z.get(row, min(z.values()) - 1) - (min(z.values()) - 1)
    rows, scores = merge(Calibrated(), found, 50)
    np.testing.assert_allclose(scores, [worth[row] for row in rows], rtol=1e-5, atol=1e-6)


def test_one_far_ahead_counts_three_deviations() -> None:
    """Of a hundred scores 1 / rank the first stands nearly nine deviations above the mean."""
    _, scores = merge(Calibrated(), {"popular": [(row, 1 / (row + 1)) for row in range(100)]}, 100)
    assert scores[0] - scores[-1] < 3.5


def test_channels_take_turns() -> None:
    found = {"deep": [(1, 9.0), (2, 8.0), (3, 7.0)], "fresh": [(2, 1.0), (1, 0.9), (7, 0.8)], "popular": [(4, 1.0)]}
    assert merge(RoundRobin(), found, 9) == (
        [1, 2, 4, 3, 7],
        [1.0, 0.5, pytest.approx(1 / 3), 0.25, pytest.approx(0.2)],
    )


def test_a_quota_is_kept_at_every_length() -> None:
    """Of lists that have nothing in common, each prefix holds each channel's share to within one."""
    shares = {"deep": 7.0, "fresh": 2.0, "popular": 1.0}
    found = {name: [(100 * at + rank, -float(rank)) for rank in range(60)] for at, name in enumerate(NAMES)}
    rows, _ = merge(Quota(shares), found, 60)
    for length in range(1, 61):
        given = {name: sum(row // 100 == at for row in rows[:length]) for at, name in enumerate(NAMES)}
        assert all(abs(given[name] - length * shares[name] / 10) < 1 for name in NAMES), length
    assert rows[0] == 0, "the largest share begins"


def test_a_quota_is_of_items_that_no_other_channel_gave() -> None:
    deep = [(row, -float(row)) for row in range(8)]
    fresh = [(0, 1.0), (1, 0.5), (20, 0.3), (21, 0.2)]
    assert merge(Quota({"deep": 3, "fresh": 1}), {"deep": deep, "fresh": fresh}, 8)[0] == [0, 1, 20, 2, 3, 4, 21, 5]


def test_who_has_no_share_fills_up_and_who_has_no_more_gives_way() -> None:
    found = {"deep": [(1, 2.0), (2, 1.0)], "fresh": [(7, 1.0)], "popular": [(4, 1.0), (5, 0.5)]}
    assert merge(Quota({"deep": 1, "fresh": 1}), found, 9)[0] == [1, 7, 2, 4, 5]
    assert merge(Quota({"elsewhere": 1}), found, 3)[0] == [1, 7, 4], "none of them has one: all have the same"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Quota({"deep": 0, "fresh": 0}), r"^\.shares: the shares add up to 0; expected a share above 0"),
        (lambda: Quota({}), r"^\.shares: the shares add up to 0"),
        (lambda: Quota({"deep": -1}), r"^\.shares\.deep: -1; expected a number of at least 0"),
        (lambda: Quota({"deep": float("nan")}), r"^\.shares\.deep: nan"),
        (lambda: RRF(-1), r"^\.k: -1; expected at least 0"),
    ],
)
def test_what_makes_no_merge_is_refused(make: "type[Merge]", said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


def test_every_candidate_names_its_channels_with_its_rank_and_score_there() -> None:
    deep = Found(np.array([3, 1], np.int32), np.array([2.5, 1.5], np.float32), np.array([1, 0], np.int32))
    both = merged(
        RoundRobin(), {"deep": deep, "fresh": as_found([(1, 1.0), (9, 0.5)])}, {"deep": "deep", "fresh": "new"}, 9
    )
    assert both.found.rows.tolist() == [3, 1, 9]
    assert both.found.interests.tolist() == [1, 0, UNKNOWN]
    assert both.sources == [
        [Source("deep", 1, 2.5)],
        [Source("deep", 2, 1.5), Source("new", 1, 1.0)],
        [Source("new", 2, 0.5)],
    ]
