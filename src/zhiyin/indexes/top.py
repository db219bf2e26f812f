"""The k best of many scores that come a block at a time, in memory that does not grow with their number."""

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.indexes.base import Vectors

CHUNK = 1 << 15
"""Pairs whose scores are computed again at once: 8 MB of vectors at d = 64."""

SAMPLE = 1 << 16
"""About how much of a query's first block is looked at for a first guess of what its k-th best is."""


class Best:
    """The k best rows of each of `queries` [n, d].

    A matrix product rounds differently with its shape, so a query alone would be answered otherwise than in a crowd.
    Hence a block's scores only say which rows may be among the best: within rounding's worst case,
    |fl(q·v) − q·v| ≤ d·u·‖q‖·‖v‖ with u = 2⁻²⁴ (Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1).
    Those rows' scores are computed again, each by itself, and these decide; equal scores go to the lower row.
    """

    def __init__(self, queries: Vectors, vectors: Vectors, k: int, longest: float) -> None:
        """`vectors` [m, d]: what rows point at; `longest`: the length of the longest of them."""
        self._queries, self._vectors, self._k = queries, vectors, k
        lengths = np.sqrt(np.einsum("nd,nd->n", queries, queries, dtype=np.float64))
        self._slack = (2.0**-22 * queries.shape[1] * longest * lengths).astype(np.float32)
        self._bound = np.full(len(queries), -np.inf, np.float32)  # a score below it is not among the k best
        self._places, self._rows = np.empty(0, np.int32), np.empty(0, np.int32)
        self._scores: Vectors = np.empty(0, np.float32)
        self._waiting: list[tuple[NDArray[np.int32], Rows]] = []

    def add(self, scores: Vectors, rows: Rows) -> None:
        """scores [n, b] of these b rows, ascending and higher than all rows before."""
        flat = np.flatnonzero(scores >= self._guess(scores)[:, None])
        places, columns = np.divmod(flat, scores.shape[1])
        self._waiting.append((places.astype(np.int32), rows[columns]))
        if sum(len(places) for places, _ in self._waiting) > 4 * self._k * len(self._queries):
            self._settle()

    def top(self, k: int) -> tuple[Rows, Vectors]:
        """[n, k] rows and scores, descending; `UNKNOWN` and -inf after the last."""
        self._settle()
        rows = np.full((len(self._queries), k), UNKNOWN, np.int32)
        scores = np.full((len(self._queries), k), -np.inf, np.float32)
        ranks = _ranks(self._places)
        rows[self._places, ranks], scores[self._places, ranks] = self._rows, self._scores
        return rows, scores

    def _guess(self, scores: Vectors) -> Vectors:
        """[n] Before anything is known, the k-th best of a part of the block is a lower bound."""
        part = scores[:, :: max(1, scores.shape[1] // max(SAMPLE, 4 * self._k))]
        if self._bound[0] > -np.inf or part.shape[1] < self._k:
            return self._bound
        place = part.shape[1] - self._k
        kth: Vectors = np.partition(part, place, axis=1)[:, place]
        bound: Vectors = kth - self._slack
        return bound

    def _settle(self) -> None:
        """Score what waits, keep the k best of each query, raise the bounds."""
        if not self._waiting:
            return
        places = np.concatenate([self._places, *(places for places, _ in self._waiting)])
        rows = np.concatenate([self._rows, *(rows for _, rows in self._waiting)])
        scores = np.concatenate([self._scores, self._score(places[len(self._places) :], rows[len(self._places) :])])
        self._waiting.clear()
        order = _order(places, scores, len(self._queries))
        order = order[_ranks(places[order]) < self._k]
        self._places, self._rows, self._scores = places[order], rows[order], scores[order]
        last = np.flatnonzero(_ranks(self._places) == self._k - 1)
        self._bound[self._places[last]] = self._scores[last] - self._slack[self._places[last]]

    def _score(self, places: NDArray[np.int32], rows: Rows) -> Vectors:
        scores: Vectors = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            np.einsum("pd,pd->p", self._queries[places[part]], self._vectors[rows[part]], out=scores[part])
        return scores


def _ranks(places: NDArray[np.int32]) -> NDArray[np.int64]:
    """Each one's number among its equals, in sorted `places`."""
    starts = np.flatnonzero(np.r_[True, places[1:] != places[:-1]]) if len(places) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(places)])
    ranks: NDArray[np.int64] = np.arange(len(places)) - np.repeat(starts, lengths)
    return ranks


def _order(places: NDArray[np.int32], scores: Vectors, count: int) -> NDArray[np.int64]:
    """By place (of `count`), then by descending score, then as they came: one sort of whole numbers, which is several
    times faster than a sort by three keys."""
    bits = scores.view(np.uint32)
    descending = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
    shift = 32 - (count - 1).bit_length()
    keys = places.astype(np.uint64) << np.uint64(32 + shift) | descending.astype(np.uint64) << np.uint64(shift)
    keys |= np.arange(len(keys), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64((1 << shift) - 1)).astype(np.int64)
