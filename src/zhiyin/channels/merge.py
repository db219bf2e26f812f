"""Several channels' candidates become one list, each candidate once.

Scores of different channels are in different units, so a merge goes by rank, by turns, or by calibrated scores.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zhiyin.channels.base import Found
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SpecError
from zhiyin.indexes.base import Vectors

FARTHEST = 3.0
"""Standard deviations from its channel's mean that a calibrated score counts at most."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a candidate came from: its rank in that channel, from 1, and its score there."""

    channel: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Merged:
    """The candidates, and [f] the sources of each."""

    found: Found
    sources: list[list[Source]]


@runtime_checkable
class Merge(Protocol):
    """A way to make one list of several."""

    def merge(self, lists: Mapping[str, Found], k: int) -> tuple[Rows, Vectors]:
        """Up to k distinct rows of these channels' lists, and their scores, descending; fewer only where the lists have
        no more. Of equal ones that of the earlier channel comes first."""
        ...


@dataclass(frozen=True, slots=True)
class RRF:
    """Reciprocal-rank fusion (Cormack, Clarke & Büttcher 2009): the sum of 1 / (`k` + rank) over the channels that
    found an item. It asks nothing of the scores, and what several channels found rises."""

    k: int = 60

    def __post_init__(self) -> None:
        if self.k < 0:
            raise SpecError(f"{self.k}", where=".k", expected="at least 0")

    def merge(self, lists: Mapping[str, Found], k: int) -> tuple[Rows, Vectors]:
        return _summed(lists, [1 / (self.k + np.arange(1.0, len(one.rows) + 1)) for one in lists.values()], k)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The sum of z-scores: each channel's scores less their mean, by their standard deviation, in this one answer. It
    keeps what ranks forget: by how much a channel prefers its first.

    A z-score beyond ±3 counts as 3, else a score of 1 / rank would put its first nine deviations ahead. An item that a
    channel did not find counts there as one deviation below its last.
    """

    def merge(self, lists: Mapping[str, Found], k: int) -> tuple[Rows, Vectors]:
        return _summed(lists, [_calibrated(one.scores) for one in lists.values()], k)


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """The channels take turns, each giving the best it has that was not given yet. The score is 1 / rank."""

    def merge(self, lists: Mapping[str, Found], k: int) -> tuple[Rows, Vectors]:
        return _by_turns(lists, {}, k)


@dataclass(frozen=True, slots=True)
class Quota:
    """Turns in proportion to `shares` (smooth weighted round robin): of any first n candidates, each channel has given
    about its share, of items that no other gave before. A channel without a share only fills up when the others have no
    more; the share of one that has no more falls to the others. The score is 1 / rank."""

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if not 0 <= share < math.inf:
                raise SpecError(f"{share}", where=f".shares.{name}", expected="a number of at least 0")
        if not sum(self.shares.values()) > 0:
            raise SpecError(
                f"the shares add up to {sum(self.shares.values()):g}",
                where=".shares",
                expected="a share above 0 for some channel",
            )

    def merge(self, lists: Mapping[str, Found], k: int) -> tuple[Rows, Vectors]:
        return _by_turns(lists, self.shares, k)


def merged(how: Merge, lists: Mapping[str, Found], names: Mapping[str, str], k: int) -> Merged:
    """One list of k; `names` says what each list's channel is called in the sources. An interest is that of the first
    channel which knows of any."""
    rows, scores = how.merge(lists, k)
    places = {slot: dict(zip(one.rows.tolist(), range(len(one.rows)), strict=True)) for slot, one in lists.items()}
    interests = np.full(len(rows), UNKNOWN, np.int32)
    sources: list[list[Source]] = []
    for at, row in enumerate(rows.tolist()):
        there = [(slot, places[slot][row]) for slot in lists if row in places[slot]]
        sources.append([source(names[slot], lists[slot], place) for slot, place in there])
        known = (int(lists[slot].interests[place]) for slot, place in there)
        interests[at] = next((interest for interest in known if interest != UNKNOWN), UNKNOWN)
    return Merged(Found(rows, scores, interests), sources)


def source(name: str, found: Found, place: int) -> Source:
    """The source of one place of a channel's list."""
    return Source(name, place + 1, round(float(found.scores[place]), 5))


def _summed(lists: Mapping[str, Found], worth: list[NDArray[np.float64]], k: int) -> tuple[Rows, Vectors]:
    """The k rows whose worth over all lists is largest."""
    rows, first, which = np.unique(
        np.concatenate([one.rows for one in lists.values()]), return_index=True, return_inverse=True
    )
    sums = np.bincount(which, np.concatenate(worth), minlength=len(rows))
    order = np.lexsort((first, -sums))[:k]
    return rows[order].astype(np.int32), sums[order].astype(np.float32)


def _calibrated(scores: Vectors) -> NDArray[np.float64]:
    wide = scores.astype(np.float64)
    if not len(wide):
        return wide
    deviation = float(wide.std())
    z = np.clip((wide - wide.mean()) / deviation, -FARTHEST, FARTHEST) if deviation > 0 else np.zeros(len(wide))
    lifted: NDArray[np.float64] = z - z.min() + 1
    return lifted


def _by_turns(lists: Mapping[str, Found], shares: Mapping[str, float], k: int) -> tuple[Rows, Vectors]:
    given: dict[int, None] = {}
    left = {name: iter(one.rows.tolist()) for name, one in lists.items()}
    following = {name: _following(rows, given) for name, rows in left.items()}
    credit = dict.fromkeys(lists, 0.0)
    while len(given) < k:
        following = {
            name: row if row not in given else _following(left[name], given)
            for name, row in following.items()
            if row != UNKNOWN
        }
        there = [name for name, row in following.items() if row != UNKNOWN]
        if not there:
            break
        turns = {name: shares[name] for name in there if shares.get(name, 0) > 0} or dict.fromkeys(there, 1.0)
        for name, share in turns.items():
            credit[name] += share
        chosen = max(turns, key=credit.__getitem__)
        credit[chosen] -= sum(turns.values())
        given[following[chosen]] = None
    rows = np.fromiter(given, np.int32, len(given))
    return rows, (1.0 / np.arange(1, len(rows) + 1)).astype(np.float32)


def _following(rows: Iterator[int], given: Mapping[int, None]) -> int:
    """The next row that was not given yet; `UNKNOWN` when there is none."""
    return next((row for row in rows if row not in given), UNKNOWN)


EXAMPLES = (RRF(), Calibrated(), RoundRobin(), Quota(shares={"deep": 3, "fresh": 1}))
