"""Exact ranking of the whole catalogue, a block of queries at a time. Never sampled, never through an index."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import TrainingError

BLOCK_SCORES = 1 << 24
"""About how many scores are held at once."""


class Scorer(Protocol):
    """Anything that can score the whole catalogue: towers, a baseline."""

    def scores(self, events: Events) -> Tensor:
        """float32 [n, m]: each item's score for the user just before each of these events. It may be overwritten."""
        ...


def rank(scorer: Scorer, data: Prepared, held: HeldOut, k: int, *, remove_seen: bool = True) -> Rows:
    """[n, k] the best rows for each held-out query, by descending score; equal scores by lower row.

    `remove_seen`: items anywhere in the query's history do not come back. After the last item a query can have stands
    `UNKNOWN`. Raises `TrainingError` for a score that is NaN.
    """
    size = len(data.items)
    found = np.full((len(held), k), UNKNOWN, np.int32)
    step = max(1, BLOCK_SCORES // size)
    for start in range(0, len(held), step):
        events = held.starts[start : start + step]
        scores = scorer.scores(events)
        if torch.isnan(scores).any():
            raise TrainingError(
                f"{type(scorer).__name__} gives scores that are NaN",
                where="evaluation",
                remedy="The model has diverged: lower the learning rates and fit again.",
            )
        if remove_seen:
            hide_seen(scores, data, events)
        found[start : start + step, : min(k, size)] = top_rows(scores, min(k, size))
    return found


def hide_seen(scores: Tensor, data: Prepared, events: Events) -> None:
    """Put −inf where a query's history has been, in place."""
    log = data.events
    starts = log.offsets[log.users[events]]
    lengths = events - starts
    queries = np.repeat(np.arange(len(events)), lengths)
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
    rows = torch.from_numpy(log.items[places].astype(np.int64)).to(scores.device)
    scores[torch.from_numpy(queries).to(scores.device), rows] = -torch.inf


def top_rows(scores: Tensor, k: int) -> Rows:
    """[n, k] the rows of the k best of scores [n, m], descending; equal scores by lower row; `UNKNOWN` for −inf.

    `torch.topk` leaves open which of several equal scores it takes, so a query whose last place is tied is ranked again
    by a stable sort.
    """
    values, rows = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(1) & (values[:, 0] > -torch.inf)
    values, rows = values[:, :k], rows[:, :k].clone()
    for query in torch.nonzero(tied)[:, 0].tolist():
        rows[query] = torch.sort(scores[query], descending=True, stable=True).indices[:k]
    rows[torch.isneginf(values)] = UNKNOWN
    return rows.cpu().numpy().astype(np.int32)
