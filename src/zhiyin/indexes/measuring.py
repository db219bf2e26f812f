"""How much an index finds, and how fast: on given vectors, queries and clock."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zhiyin import spec
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.indexes.base import Hits, Index, Vectors
from zhiyin.indexes.truth import truth

TIMED = 1000
"""Queries that speed is measured on …"""

TIMED_SECONDS = 1.0
"""… or as many as fit this time."""

TURN = 20
"""Queries that one index is asked before it is the other's turn: when they change places at every query, each finds its
part of the processor's cache taken by the other, and the smaller one's advantage does not show."""

Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way to search, measured: the mean `overlap` over the queries, its standard `error`, and `speed`: queries a
    second, one a call."""

    spec: Any
    overlap: float
    error: float
    speed: float

    def table(self) -> dict[str, Any]:
        """Plain enough for JSON."""
        return {
            "index": spec.used_table(self.spec, "zhiyin.indexes"),
            "overlap": round(self.overlap, 5),
            "standard_error": round(self.error, 5),
            "queries_per_second": round(self.speed, 1),
        }


@dataclass(frozen=True, slots=True)
class Bench:
    """`queries` [n, d] and what exact search answers them: `truth` [n, k]. `threads` search at once when timed."""

    queries: Vectors
    truth: Hits
    threads: int
    clock: Clock

    @classmethod
    def of(cls, vectors: Vectors, queries: Vectors, k: int, threads: int, clock: Clock) -> Self:
        return cls(queries, truth(vectors, queries, k), threads, clock)

    def first(self, count: int) -> "Bench":
        """The same with fewer queries."""
        return replace(
            self, queries=self.queries[:count], truth=Hits(self.truth.rows[:count], self.truth.scores[:count])
        )

    @property
    def k(self) -> int:
        return int(self.truth.rows.shape[1])

    def overlap(self, index: Index) -> tuple[float, float]:
        """The mean share of the true top k that the index finds, and that mean's standard error."""
        shares = overlaps(index.search(self.queries, self.k), self.truth)
        return float(shares.mean()), float(shares.std() / np.sqrt(len(shares)))

    def speed(self, index: Index) -> float:
        """Queries a second, one a call: by the median call, which a busy neighbour hardly moves."""
        return self.threads / float(np.median(self._seconds([index])[0]))

    def faster(self, one: Index, other: Index) -> float:
        """How many times faster `one` is than `other`, asked the same queries in turns."""
        mine, others = self._seconds([one, other])
        return float(np.median(others) / np.median(mine))

    def point(self, spec: Any, index: Index) -> Point:
        return Point(spec, *self.overlap(index), self.speed(index))

    def _seconds(self, indexes: Sequence[Index]) -> list[list[float]]:
        """For each index, what its calls took, `threads` of them at once."""
        places = np.arange(min(TIMED * self.threads, len(self.queries)))
        parts = [part for part in np.array_split(places, self.threads) if len(part)]
        if len(parts) == 1:
            return self._ask(indexes, places)
        with ThreadPoolExecutor(len(parts)) as pool:
            asked = list(pool.map(lambda part: self._ask(indexes, part), parts))
        return [[one for part in calls for one in part] for calls in zip(*asked, strict=True)]

    def _ask(self, indexes: Sequence[Index], places: NDArray[np.int64]) -> list[list[float]]:
        seconds: list[list[float]] = [[] for _ in indexes]
        end = self.clock() + TIMED_SECONDS * len(indexes)
        for first in range(0, len(places), TURN):
            for index, taken in zip(indexes, seconds, strict=True):
                for place in places[first : first + TURN]:
                    before = self.clock()
                    index.search(self.queries[place : place + 1], self.k)
                    taken.append(max(self.clock() - before, 1e-9))
                    if self.clock() > end:
                        break
            if self.clock() > end:
                break
        return seconds


def overlaps(hits: Hits, truth: Hits) -> NDArray[np.float64]:
    """[n] For each query, the share of its true hits that are among those found; 1 where there are none."""
    shares = np.ones(len(truth.rows))
    for place, (wanted, found) in enumerate(zip(truth.rows, hits.rows, strict=True)):
        real = wanted[wanted != UNKNOWN]
        if len(real):
            shares[place] = np.isin(real, found).mean()
    return shares


def least_effort(ladder: Sequence[Any], reaches: Callable[[Any], tuple[bool, float]]) -> int | None:
    """The number of the first rung that reaches the target, by leaps and then by halves; None where overlap stops
    rising before. `reaches(rung)`: whether, and with what overlap."""
    below, rung, before = -1, min(LEAP, len(ladder)) - 1, -1.0
    while True:
        enough, overlap = reaches(ladder[rung])
        if enough:
            break
        if rung == len(ladder) - 1 or overlap - before < FLAT:
            return None
        below, rung, before = rung, min(rung + LEAP, len(ladder) - 1), overlap
    while rung - below > 1:
        middle = (rung + below) // 2
        if reaches(ladder[middle])[0]:
            rung = middle
        else:
            below = middle
    return rung


LEAP = 32
"""Rungs at once: an effort about 2.5 times as large."""

FLAT = 0.002
"""A leap that gains less overlap than this will gain no more."""
