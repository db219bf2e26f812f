"""Several channels side by side: what each finds that the others do not (the candidates of all are merged online)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.evaluation.metrics import recall
from zhiyin.evaluation.targets import Targets


@dataclass(frozen=True, slots=True)
class Increments:
    """Mean recall: of each channel `alone`, of the `union` of all, and what each `adds` to the union of the others."""

    alone: Mapping[str, float]
    union: float
    adds: Mapping[str, float]


def increments(found: Mapping[str, Rows], targets: Targets) -> Increments:
    """`found` [n, k] of each channel; the channels may bring different k."""
    hits = {name: targets.hits(rows) for name, rows in found.items()}
    union = _union(found, targets)
    adds = {name: union - _union({n: rows for n, rows in found.items() if n != name}, targets) for name in found}
    return Increments({name: float(recall(h, targets.counts).mean()) for name, h in hits.items()}, union, adds)


def _union(found: Mapping[str, Rows], targets: Targets) -> float:
    """Mean recall of the distinct candidates of all channels."""
    if not found:
        return 0.0
    together = np.sort(np.concatenate(list(found.values()), axis=1), axis=1)
    together[:, 1:][together[:, 1:] == together[:, :-1]] = UNKNOWN  # a target found twice is found once
    return float(recall(targets.hits(together), targets.counts).mean())
