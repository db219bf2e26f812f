"""Everything an evaluation's page shows, as plain JSON values: the page is drawn from nothing else."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.evaluation import lists
from zhiyin.evaluation.channels import increments
from zhiyin.evaluation.metrics import Counts, Values, ndcg, recall
from zhiyin.evaluation.report import Measured, Ranked
from zhiyin.evaluation.significance import differences, intervals, means
from zhiyin.evaluation.slices import Slice, history_slice, named_slices, popularity_slice, warmth_slice
from zhiyin.evaluation.targets import Targets

CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
"""Where the recall–k curve has points, as far as the lists go."""

Columns = dict[tuple[str, ...], Values]
"""Figures by their place in the document: [n] one number a query, NaN where it has no part."""


def analyse(
    measured: Measured,
    data: Prepared,
    split: Split,
    *,
    columns: Sequence[str] = (),
    separators: Mapping[str, str] = MappingProxyType({}),
    traits: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The report's figures with 95 % intervals (bootstrap over users), curves, slices, what the lists are like, what
    each scorer adds to the others, and the first scorer's difference from each other one.

    `columns`: of users, items or events, to slice by as well; `separators`: as in `named_slices`. `traits` [m, t]: by
    which intra-list diversity is measured, left out without them. Raises `SpecError` for a column that is not there.
    """
    popularity = training_events(data, split)
    slices = [
        history_slice(data.events, measured.asked.starts),
        warmth_slice(popularity),
        popularity_slice(popularity),
        *named_slices(columns, data, measured.asked.starts, separators),
    ]
    k = middle(measured.ks)
    figures = {name: _figures(name, measured, slices, k, seed) for name, one in measured.ranked.items()}
    found = {name: one.found[:, :k] for name, one in measured.ranked.items()}
    channels = increments(found, measured.targets)
    return measured.report.to_json() | {
        "ks": list(measured.ks),
        "k": k,
        "intervals": {name: one["metrics"] for name, one in figures.items()},
        "curves": {name: one["curve"] for name, one in figures.items()},
        "slices": [_slice(one, measured.targets, figures, k) for one in slices],
        "lists": {name: _lists(rows, measured.targets, popularity, traits, k) for name, rows in found.items()},
        "popularity": _popularity(found, measured.targets, popularity),
        "increments": {"k": k, "alone": channels.alone, "union": channels.union, "adds": channels.adds},
        "differences": _differences(measured, seed),
    }


def middle(ks: Sequence[int]) -> int:
    """The k that slices, lists and increments are measured at."""
    return sorted(ks)[len(ks) // 2]


def training_events(data: Prepared, split: Split) -> Counts:
    """[m] training events of each item."""
    rows = data.events.items[split.train]
    return np.bincount(rows[rows != UNKNOWN], minlength=len(data.items))


def _figures(scorer: str, measured: Measured, slices: Sequence[Slice], k: int, seed: int) -> dict[str, Any]:
    """All means of one scorer with their intervals: one bootstrap for all of them."""
    one, counts = measured.ranked[scorer], measured.targets.counts
    columns: Columns = {("metrics", name): values for name, values in measured.values(scorer).items()}
    for at in (at for at in CURVE if at <= one.hits.shape[1]):
        columns["curve", str(at)] = recall(one.hits[:, :at], counts)
    for part in slices:
        for name, members in part.parts.items():
            columns |= _part(one, measured.targets, part, name, members, k)
    values = np.stack(list(columns.values()), 1)
    low, high = intervals(values, measured.users, seed=seed)
    document: dict[str, Any] = {}
    for place, *figure in zip(columns, means(values), low, high, strict=True):
        into = document
        for step in place[:-1]:
            into = into.setdefault(step, {})
        into[place[-1]] = [_number(value) for value in figure]
    return document


def _part(one: Ranked, targets: Targets, part: Slice, name: str, members: NDArray[np.bool_], k: int) -> Columns:
    hits, counts = one.hits[:, :k], targets.counts
    if part.of == "items":
        counts = targets.among(members).counts
        hits = hits & members[one.found[:, :k]]
        there = counts > 0
    else:
        there = members
    columns: Columns = {}
    for metric, function in (("recall", recall), ("ndcg", ndcg)):
        values = np.full(len(hits), np.nan)
        values[there] = function(hits[there], counts[there])
        columns["slices", part.name, name, f"{metric}@{k}"] = values
    return columns


def _slice(part: Slice, targets: Targets, figures: Mapping[str, Any], k: int) -> dict[str, Any]:
    parts = []
    for name, members in part.parts.items():
        counts = targets.among(members).counts if part.of == "items" else members
        asked = int((counts > 0).sum())
        scorers = {scorer: one["slices"][part.name][name] for scorer, one in figures.items()} if asked else {}
        parts.append({"name": name, "queries": asked, "scorers": scorers})
    return {"name": part.name, "of": part.of, "k": k, "parts": parts}


def _lists(
    found: Any, targets: Targets, popularity: Counts, traits: NDArray[np.float32] | None, k: int
) -> dict[str, float]:
    catalogue = len(popularity)
    values = {
        f"coverage@{k}": lists.coverage(found, catalogue),
        f"novelty@{k}": lists.novelty(found, popularity),
        f"popularity lift@{k}": lists.popularity_lift(found, targets.rows, popularity),
        f"gini@{k}": lists.gini(found, catalogue),
    }
    return values | ({} if traits is None else {f"diversity@{k}": lists.diversity(found, traits)})


def _popularity(found: Mapping[str, Any], targets: Targets, popularity: Counts) -> dict[str, Any]:
    groups = lists.popularity_groups(popularity)
    return {
        "items": np.bincount(groups, minlength=lists.GROUPS).tolist(),
        "targets": lists.popularity_shares(targets.rows, groups),
        "scorers": {name: lists.popularity_shares(rows, groups) for name, rows in found.items()},
    }


def _differences(measured: Measured, seed: int) -> dict[str, Any]:
    """The first scorer's metrics less each other's."""
    first, *others = measured.ranked
    mine = measured.values(first)
    document: dict[str, Any] = {}
    for other in others:
        theirs = measured.values(other)
        found = differences(
            np.stack(list(theirs.values()), 1), np.stack(list(mine.values()), 1), measured.users, seed=seed
        )
        document[other] = {
            name: {"difference": one.difference, "low": one.low, "high": one.high, "p": one.p}
            for name, one in zip(mine, found, strict=True)
        }
    return document


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
