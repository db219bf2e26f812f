"""Exact ranking of the whole catalogue, a block of queries and items at a time. Never sampled, never by an index."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import TrainingError
from zhiyin.evaluation.best import Best, blocks
from zhiyin.evaluation.histories import pasts
from zhiyin.products import product

BLOCK_SCORES = 1 << 24
"""About how many scores of a whole catalogue are held at once."""

BLOCK_QUERIES = 1024
"""User vectors that are compared with the items at a time."""


class Scorer(Protocol):
    """Anything that can score the whole catalogue: towers, a baseline."""

    def scores(self, events: Events) -> Tensor:
        """float32 [n, m]: each item's score for the user just before each of these events. It may be overwritten."""
        ...


@runtime_checkable
class VectorScorer(Scorer, Protocol):
    """A scorer whose scores are inner products, the best of a user's interests; it is ranked a block of items at a
    time, so that catalogues of any size fit."""

    items: Tensor
    """float32 [m, d]."""

    def users(self, events: Events) -> Tensor:
        """float32 [n, h, d], of the users just before each of these events."""
        ...


def rank(scorer: Scorer, data: Prepared, held: HeldOut, k: int, *, remove_seen: bool = True) -> Rows:
    """[n, k] the best rows for each held-out query, by descending score; equal scores by lower row.

    `remove_seen`: items anywhere in the query's history do not come back. After the last item a query can have stands
    `UNKNOWN`. Raises `TrainingError` for a score that is NaN.
    """
    found = np.full((len(held), k), UNKNOWN, np.int32)
    step = BLOCK_QUERIES if isinstance(scorer, VectorScorer) else max(1, BLOCK_SCORES // len(data.items))
    for start in range(0, len(held), step):
        events = held.starts[start : start + step]
        try:
            found[start : start + step] = _rank(scorer, data, events, k, remove_seen)
        except TrainingError as error:
            raise error.at(type(scorer).__name__) from None
    return found


@torch.no_grad()
def _rank(scorer: Scorer, data: Prepared, events: Events, k: int, remove_seen: bool) -> Rows:
    best: Best | None = None
    seen: _Seen | None = None
    for start, scores in _scores(scorer, events, k, len(data.items)):
        if best is None:
            best = Best(len(events), k, scores.device)
            seen = _Seen(data, events, scores.device) if remove_seen else None
        if seen:
            seen.hide(scores, start)
        best.add(scores, start)
    return np.full((len(events), k), UNKNOWN, np.int32) if best is None else best.rows()


def _scores(scorer: Scorer, events: Events, k: int, catalogue: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, scores [n, c]) of one block of items after the other."""
    if isinstance(scorer, VectorScorer):
        users = scorer.users(events)
        flat = users.flatten(0, 1)
        held = torch.empty(0, device=flat.device)
        for start, stop in blocks(catalogue, k):
            if len(flat) * (stop - start) > len(held):
                held = torch.empty(len(flat) * (stop - start), device=flat.device)
            scores = held[: len(flat) * (stop - start)].view(len(flat), -1)  # fresh memory costs as much as the product
            product(flat, scorer.items[start:stop].T, out=scores)
            yield start, scores if users.shape[1] == 1 else scores.view(len(users), -1, stop - start).amax(1)
    else:
        whole = scorer.scores(events)
        for start, stop in blocks(catalogue, k):
            yield start, whole[:, start:stop]


class _Seen:
    """What stands in the queries' histories, sorted by row."""

    def __init__(self, data: Prepared, events: Events, device: torch.device) -> None:
        queries, places = pasts(data.events, events)
        rows = data.events.items[places]
        order = np.argsort(rows, kind="stable")
        self._sorted = rows[order].astype(np.int64)
        self._queries = torch.from_numpy(queries[order]).to(device)
        self._rows = torch.from_numpy(self._sorted).to(device)

    def hide(self, scores: Tensor, start: int) -> None:
        """Put −inf where a query's history has been, in place, in scores [n, c] of the rows start … start+c-1."""
        first, last = np.searchsorted(self._sorted, [start, start + scores.shape[1]])
        scores[self._queries[first:last], self._rows[first:last] - start] = -torch.inf
