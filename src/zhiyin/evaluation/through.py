"""What reaches the user: the towers searched through an index, seen and filtered items gone, beside exact search."""

import time
from dataclasses import dataclass

import numpy as np

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import DataError
from zhiyin.evaluation.histories import pasts
from zhiyin.evaluation.metrics import recall
from zhiyin.evaluation.ranking import VectorScorer
from zhiyin.evaluation.targets import targets
from zhiyin.indexes.base import Allowed, Hits, Searchable, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.overlap import overlap

BLOCK = 256
"""Queries that are searched at a time."""


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """recall@k of the towers through the index, that of exact search, and the share of exact search's candidates that
    the index finds; `milliseconds` of search a query, batches of `BLOCK`. `filter`: in words, "" for none;
    `selectivity` is the share of the items that pass it, `reach` that of the targets; `queries` have such a target."""

    filter: str
    selectivity: float
    reach: float
    k: int
    queries: int
    recall: float
    exact_recall: float
    overlap: float
    milliseconds: float


def holds(vectors: Vectors, scorer: VectorScorer) -> bool:
    """Whether vectors [m, d] of a release are this scorer's: by some of them."""
    if vectors.shape != tuple(scorer.items.shape):
        return False
    some = np.linspace(0, len(vectors) - 1, 100).astype(np.int64)
    return bool(np.allclose(vectors[some], scorer.items[some].cpu().numpy(), atol=1e-3))


def end_to_end(
    index: Searchable,
    scorer: VectorScorer,
    data: Prepared,
    held: HeldOut,
    k: int,
    *,
    allowed: Allowed | None = None,
    filter: str = "",
    remove_seen: bool = True,
) -> EndToEnd:
    """`allowed` [m]: which items a filter (`filter` in words) lets pass; targets that it forbids are no targets. Raises
    `DataError` when no query has a target, and `SearchError` for vectors that do not fit the index."""
    every = targets(data, held, remove_seen=remove_seen)
    wanted = every if allowed is None else every.among(allowed)
    kept = wanted.counts > 0
    if not kept.any():
        raise DataError(
            "no held-out query has a target that may be found",
            where=f"evaluation through an index, filter {filter!r}" if filter else "evaluation through an index",
        )
    selectivity, reach = 1.0 if allowed is None else float(allowed.mean()), len(wanted.rows) / len(every.rows)
    starts, wanted = held.starts[kept], wanted.of(kept)
    exact = Exact().build(scorer.items.cpu().numpy())
    best, _ = _search(exact, scorer, data, starts, k, allowed, remove_seen)
    found, seconds = _search(index, scorer, data, starts, k, allowed, remove_seen)
    scores = np.zeros(found.shape, np.float32)
    return EndToEnd(
        filter,
        selectivity,
        reach,
        k,
        len(starts),
        float(recall(wanted.hits(found), wanted.counts).mean()),
        float(recall(wanted.hits(best), wanted.counts).mean()),
        overlap(Hits(found, scores), Hits(best, scores)),
        1e3 * seconds / len(starts),
    )


def _search(
    index: Searchable,
    scorer: VectorScorer,
    data: Prepared,
    starts: Events,
    k: int,
    allowed: Allowed | None,
    remove_seen: bool,
) -> tuple[Rows, float]:
    """[n, k] the candidates, and the seconds that search alone took."""
    found, seconds = np.full((len(starts), k), UNKNOWN, np.int32), 0.0
    for start in range(0, len(starts), BLOCK):
        events = starts[start : start + BLOCK]
        users = scorer.users(events).cpu().numpy()
        queries, places = pasts(data.events, events) if remove_seen else (events[:0], events[:0])
        more = int(np.bincount(queries).max()) if len(queries) else 0
        since = time.perf_counter()
        hits = index.search(users.reshape(-1, users.shape[2]), min(k + more, len(index)), allowed)
        seconds += time.perf_counter() - since
        seen = queries << 32 | data.events.items[places].astype(np.int64)
        found[start : start + BLOCK] = _merged(hits, len(events), k, np.unique(seen))
    return found, seconds


def _merged(hits: Hits, queries: int, k: int, seen: Events) -> Rows:
    """[n, k] the distinct rows of all interests by best score (equal: lower row), without what is seen."""
    rows, scores = hits.rows.reshape(queries, -1), hits.scores.reshape(queries, -1)
    keys = np.arange(queries)[:, None] << 32 | rows.astype(np.int64)
    scores = np.where((rows == UNKNOWN) | np.isin(keys, seen), -np.inf, scores)
    order = np.lexsort((rows, -scores), axis=1)
    rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    found = np.full((queries, k), UNKNOWN, np.int32)
    for query in range(queries):
        real = rows[query][scores[query] > -np.inf]
        _, firsts = np.unique(real, return_index=True)
        best = real[np.sort(firsts)][:k]
        found[query, : len(best)] = best
    return found
