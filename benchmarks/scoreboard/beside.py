"""The baselines that stand beside a set's figures. They learn from all that is not the test: what they need no
validation for is not kept from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from scoreboard.sets import BenchmarkSet
from zhiyin.baselines.ease import EASE
from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.evaluation.histories import runs
from zhiyin.evaluation.ranking import Scorer
from zhiyin.evaluation.report import evaluate, measure
from zhiyin.evaluation.significance import intervals

EASE_ITEMS = 20_000
"""Above so many items EASE's matrix and its inverse take too long for a figure beside others."""


class Baseline(Protocol):
    """A spec of a baseline."""

    def fit(self, data: Prepared, split: Split) -> Scorer: ...


def choices(clock: bool, items: int, tuned: bool) -> dict[str, Sequence[Baseline]]:
    """By name, the settings to choose among on validation: the defaults alone, unless `tuned`."""
    found: dict[str, Sequence[Baseline]] = {"popularity": [Popularity()]}
    if clock:
        found["popularity, 7 days"] = [Popularity(days=7)]
    shrinkages, neighbours = ((0, 10, 50), (50, 200)) if tuned else ((10,), (100,))
    found["item-kNN"] = [ItemKNN(count, shrinkage) for shrinkage in shrinkages for count in neighbours]
    found["recent kNN"] = [
        ItemKNN(count, shrinkage, half_life)
        for shrinkage in shrinkages
        for count in neighbours
        for half_life in ((5, 20, 80) if tuned else (5,))
    ]
    if items <= EASE_ITEMS:
        found["EASE"] = [EASE(penalty) for penalty in ((30, 100, 300, 1000, 3000) if tuned else (300,))]
    return found


def baselines(one: BenchmarkSet, data: Prepared, split: Split) -> dict[str, Any]:
    """By name: settings, metrics on the test, and their intervals."""
    chosen = {
        name: best(options, data, split, one.k)
        for name, options in choices(data.clock, len(data.items), one.tuned).items()
    }
    whole = everything_else(data, split)
    found = measure(
        {name: spec.fit(data, whole) for name, spec in chosen.items()}, data, split.test, ks=one.ks, end=whole.end
    )
    return {
        name: {
            "settings": str(spec),
            "metrics": dict(found.report.rows[name]),
            "intervals": bands(found.values(name), found.users),
        }
        for name, spec in chosen.items()
    }


def best(options: Sequence[Baseline], data: Prepared, split: Split, k: int) -> Baseline:
    """The settings with the best recall@k on validation, learned from the training events."""
    if len(options) == 1:
        return options[0]
    named = {str(at): spec.fit(data, split) for at, spec in enumerate(options)}
    report = evaluate(named, data, split.validation, ks=(k,))
    return options[int(max(named, key=lambda name: report.value(name, f"recall@{k}")))]


def everything_else(data: Prepared, split: Split) -> Split:
    """The same test, and all other events to learn from."""
    kept = np.ones(len(data.events), bool)
    kept[runs(split.test.starts, split.test.stops)[1]] = False
    train = np.flatnonzero(kept)
    return replace(split, train=train, end=int(data.events.times[train].max()))


def bands(values: Mapping[str, Any], users: Any) -> dict[str, list[float]]:
    """95 % bootstrap intervals over users, by metric."""
    low, high = intervals(np.stack(list(values.values()), 1), users)
    return {name: [float(low[at]), float(high[at])] for at, name in enumerate(values)}
