"""What the held-out queries should have found, and which candidates are among it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.evaluation.histories import pasts, runs
from zhiyin.evaluation.metrics import Counts, Hit

BLOCK = 1 << 14
"""Queries whose histories or candidates are looked at at a time."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The distinct targets of n queries, flat: `queries` [t] ascending, `rows` [t] ascending within a query. What lies
    outside the catalogue (`UNKNOWN`) is one target that no candidate can be."""

    count: int
    queries: Events
    rows: Rows

    @property
    def counts(self) -> Counts:
        """[n] targets of each query."""
        return np.bincount(self.queries, minlength=self.count)

    def of(self, kept: NDArray[np.bool_]) -> "Targets":
        """Those of the queries [n] that are kept, numbered anew."""
        numbers = np.cumsum(kept) - 1
        there = kept[self.queries]
        return Targets(int(kept.sum()), numbers[self.queries[there]], self.rows[there])

    def among(self, items: NDArray[np.bool_]) -> "Targets":
        """Those that are of these items [m]; queries keep their numbers."""
        there = (self.rows != UNKNOWN) & items[self.rows]
        return Targets(self.count, self.queries[there], self.rows[there])

    def hits(self, found: Rows) -> Hit:
        """[n, k] which of the candidates found [n, k] are targets of their query."""
        if not len(self.rows):
            return np.zeros(found.shape, bool)
        wanted = _keys(self.queries, self.rows)
        hits = np.zeros(found.shape, bool)
        for start in range(0, len(found), BLOCK):
            block = found[start : start + BLOCK]
            keys = _keys(np.arange(start, start + len(block))[:, None], block)
            places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            hits[start : start + BLOCK] = (wanted[places] == keys) & (block != UNKNOWN)
        return hits


def targets(data: Prepared, held: HeldOut, *, remove_seen: bool) -> Targets:
    """The distinct items of each held-out run; with `remove_seen`, only what the query's history does not hold."""
    found = []
    for start in range(0, len(held), BLOCK):
        starts, stops = held.starts[start : start + BLOCK], held.stops[start : start + BLOCK]
        queries, places = runs(starts, stops)
        keys = np.unique(_keys(queries, data.events.items[places]))
        if remove_seen:
            past, seen = pasts(data.events, starts)
            known = data.events.items[seen] != UNKNOWN
            keys = keys[~np.isin(keys, _keys(past[known], data.events.items[seen[known]]))]
        found.append(keys + (start << 32))
    keys = np.concatenate(found) if found else np.zeros(0, np.int64)
    return Targets(len(held), keys >> 32, ((keys & 0xFFFFFFFF) - 1).astype(np.int32))


def _keys(queries: Events, rows: Rows) -> NDArray[np.int64]:
    """One number for a pair of query and row; ordered by query, then by row."""
    return (queries.astype(np.int64) << 32) + (rows.astype(np.int64) + 1)
