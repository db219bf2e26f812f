"""Several scorers measured by one protocol, and that protocol in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import DataError
from zhiyin.evaluation.metrics import METRICS, Counts, Hit, coverage
from zhiyin.evaluation.ranking import Scorer, rank


@dataclass(frozen=True, slots=True)
class Report:
    """`rows`: metrics by scorer and by name ("recall@50"). `words`: the protocol, stated."""

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
        names = list(next(iter(self.rows.values())))
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


def evaluate(
    scorers: Mapping[str, Scorer],
    data: Prepared,
    held: HeldOut,
    *,
    ks: Sequence[int] = (10, 50, 100),
    remove_seen: bool = True,
    split_words: str = "",
) -> Report:
    """Rank the whole catalogue for every held-out query, by every scorer, and measure what comes out.

    With `remove_seen`, targets that the query's history holds cannot be found; they are no targets, and a query that
    has no other is dropped and counted. Raises `DataError` when no query is left.
    """
    targets, counts = _targets(data, held, remove_seen)
    kept = counts > 0
    if not kept.any():
        raise DataError(
            "no held-out query has a target that is new to its user",
            where="evaluation",
            remedy="Evaluate with seen items kept, or split otherwise.",
        )
    asked = HeldOut(held.starts[kept], held.stops[kept])
    left = [t for t, there in zip(targets, kept, strict=True) if there]
    rows = {
        name: _measure(
            rank(scorer, data, asked, max(ks), remove_seen=remove_seen), left, counts[kept], ks, len(data.items)
        )
        for name, scorer in scorers.items()
    }
    dropped = int((~kept).sum())
    return Report(
        _words(split_words, remove_seen, len(asked), dropped, len(data.items)),
        len(asked),
        dropped,
        len(data.items),
        rows,
    )


def _targets(data: Prepared, held: HeldOut, remove_seen: bool) -> tuple[list[Rows], Counts]:
    log = data.events
    targets = []
    for start, stop in zip(held.starts, held.stops, strict=True):
        wanted = np.unique(log.items[start:stop])
        targets.append(wanted[~np.isin(wanted, log.history(int(start)))] if remove_seen else wanted)
    return targets, np.array([len(t) for t in targets], np.int64)


def _measure(
    found: Rows, targets: Sequence[Rows], counts: Counts, ks: Sequence[int], catalogue: int
) -> dict[str, float]:
    hits: Hit = np.zeros(found.shape, bool)
    for at, wanted in enumerate(targets):
        hits[at] = np.isin(found[at], wanted) & (found[at] != UNKNOWN)
    row = {f"{name}@{k}": metric(hits[:, :k], counts) for name, metric in METRICS.items() for k in ks}
    return row | {f"coverage@{k}": coverage(found[:, :k], catalogue) for k in ks}


def _words(split: str, remove_seen: bool, queries: int, dropped: int, catalogue: int) -> str:
    seen = "items already in the history are removed" if remove_seen else "items already in the history may come back"
    left = f" ({dropped:,} without a target that is new to their user are left out)" if dropped else ""
    start = f"{split}. " if split else ""
    return (
        f"{start}{queries:,} queries{left}, the whole catalogue of {catalogue:,} items ranked exactly; {seen}; "
        "equal scores rank by catalogue row"
    )
