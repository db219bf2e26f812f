"""Several scorers measured by one protocol, and that protocol in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import DataError, SpecError
from zhiyin.evaluation.lists import coverage
from zhiyin.evaluation.metrics import METRICS, Counts, Hit, Values
from zhiyin.evaluation.ranking import Scorer, rank
from zhiyin.evaluation.targets import Targets, targets

SEEN_STAYS = "items already in the history may come back"
"""What the protocol says where seen items are not removed."""

SHOWN = ("recall", "ndcg", "hit", "mrr", "coverage")
"""What the table for a person has; all else is in the JSON."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One scorer's candidates `found` [n, k] and which of them are targets, `hits` [n, k]."""

    found: Rows
    hits: Hit


@dataclass(frozen=True, slots=True)
class Report:
    """`rows`: metrics by scorer and by name ("recall@50"). `words`: the protocol, stated. `dropped`: queries that were
    left out."""

    words: str
    queries: int
    dropped: int
    catalogue: int
    rows: Mapping[str, Mapping[str, float]]

    def value(self, scorer: str, metric: str) -> float:
        return self.rows[scorer][metric]

    def to_json(self) -> dict[str, Any]:
        return {
            "protocol": self.words,
            "queries": self.queries,
            "dropped": self.dropped,
            "catalogue": self.catalogue,
            "metrics": {name: dict(row) for name, row in self.rows.items()},
        }

    def table(self) -> Table:
        """For a person: one line a metric, one column a scorer, the best of a line in bold; hit@k is left out where it
        equals recall@k everywhere."""
        names = [n for n in next(iter(self.rows.values())) if n.split("@")[0] in SHOWN]
        shown = [n for n in names if not (n.startswith("hit@") and self._same(n, n.replace("hit@", "recall@")))]
        table = Table(box=None)
        table.add_column("", no_wrap=True)
        for scorer in self.rows:
            table.add_column(scorer, justify="right", min_width=len("0.0000"))
        for name in shown:
            best = max(row[name] for row in self.rows.values())
            values = [f"{row[name]:.4f}" for row in self.rows.values()]
            table.add_row(name, *(f"[bold]{value}[/]" if value == f"{best:.4f}" else value for value in values))
        return table

    def _same(self, one: str, other: str) -> bool:
        return all(abs(row[one] - row[other]) < 1e-9 for row in self.rows.values())


@dataclass(frozen=True, slots=True)
class Measured:
    """The report, and what it is made of: `asked`, the n queries that have a target, their `users` [n], their targets,
    and every scorer's answers."""

    report: Report
    ks: tuple[int, ...]
    users: Rows
    asked: HeldOut
    targets: Targets
    ranked: Mapping[str, Ranked]

    def values(self, scorer: str) -> dict[str, Values]:
        """[n] each metric of each query, by its name with k."""
        return per_query(self.ranked[scorer].hits, self.targets.counts, self.ks)


def evaluate(
    scorers: Mapping[str, Scorer],
    data: Prepared,
    held: HeldOut,
    *,
    ks: Sequence[int] = (10, 50, 100),
    remove_seen: bool = True,
    split_words: str = "",
    end: int | None = None,
) -> Report:
    """Rank the whole catalogue for every held-out query, by every scorer, and measure what comes out.

    With `remove_seen`, targets that the query's history holds cannot be found; they are no targets, and a query that
    has no other is dropped and counted. `end`: when training ended; queries of an earlier time are counted in the
    words. A user without history is a query like any other. A target outside the catalogue is one that nobody finds.
    Where the catalogue has fewer items than k, the lists are shorter. Raises `SpecError` for a k below 1, `DataError`
    when no query is left, and `TrainingError` for scores that are NaN.
    """
    return measure(scorers, data, held, ks=ks, remove_seen=remove_seen, split_words=split_words, end=end).report


def measure(
    scorers: Mapping[str, Scorer],
    data: Prepared,
    held: HeldOut,
    *,
    ks: Sequence[int] = (10, 50, 100),
    remove_seen: bool = True,
    split_words: str = "",
    end: int | None = None,
) -> Measured:
    """`evaluate`, with every query's answer kept: for intervals, slices, comparisons."""
    if not ks or min(ks) < 1:
        raise SpecError(f"ks = {list(ks)}", where="evaluation", expected="numbers of candidates, each at least 1")
    wanted = targets(data, held, remove_seen=remove_seen)
    kept = wanted.counts > 0
    if not kept.any():
        raise DataError(
            "no held-out query has a target that is new to its user" if len(held) else "no event is held out",
            where="evaluation",
            remedy="Evaluate with seen items kept, or split otherwise.",
        )
    asked, left = HeldOut(held.starts[kept], held.stops[kept]), wanted.of(kept)
    ranked = {}
    for name, scorer in scorers.items():
        found = rank(scorer, data, asked, max(ks), remove_seen=remove_seen)
        ranked[name] = Ranked(found, left.hits(found))
    dropped, catalogue = int((~kept).sum()), len(data.items)
    said = _protocol(len(asked), dropped, catalogue, remove_seen) + _oddities(data, asked, left, end, max(ks))
    words = f"{split_words}. " * bool(split_words) + "; ".join(said)
    rows = {name: _row(one, left, ks, catalogue) for name, one in ranked.items()}
    report = Report(words, len(asked), dropped, catalogue, rows)
    return Measured(report, tuple(ks), data.events.users[asked.starts], asked, left, ranked)


def per_query(hits: Hit, counts: Counts, ks: Sequence[int]) -> dict[str, Values]:
    """[n] each metric of each query, by its name with k; from hits [n, at least k] and targets [n]."""
    return {f"{name}@{k}": metric(hits[:, :k], counts) for name, metric in METRICS.items() for k in ks}


def _row(one: Ranked, wanted: Targets, ks: Sequence[int], catalogue: int) -> dict[str, float]:
    row = {name: float(values.mean()) for name, values in per_query(one.hits, wanted.counts, ks).items()}
    return row | {f"coverage@{k}": coverage(one.found[:, :k], catalogue) for k in ks}


def _protocol(queries: int, dropped: int, catalogue: int, remove_seen: bool) -> list[str]:
    left = f" ({dropped:,} without a target that is new to their user are left out)" if dropped else ""
    return [
        f"{queries:,} queries{left}, the whole catalogue of {catalogue:,} items ranked exactly",
        "items already in the history are removed" if remove_seen else SEEN_STAYS,
        "equal scores rank by catalogue row",
    ]


def _oddities(data: Prepared, asked: HeldOut, wanted: Targets, end: int | None, k: int) -> list[str]:
    """What a reader of the figures should know of these queries, beyond the protocol."""
    log, starts = data.events, asked.starts
    new = int((starts == log.offsets[log.users[starts]]).sum())
    outside = int((wanted.rows == UNKNOWN).sum())
    early = 0 if end is None or not data.clock else int((log.times[starts] <= end).sum())
    said = (
        (k > len(data.items), f"lists are shorter than {k}, as the catalogue is"),
        (new, f"{new:,} queries have no history"),
        (outside, f"{outside:,} targets are outside the catalogue and count as missed"),
        (early, f"{early:,} queries are not later than training's end, so others' later events were learned from"),
    )
    return [words for happens, words in said if happens]
