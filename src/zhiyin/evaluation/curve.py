"""How an index trades time for what it finds: the same built index, searched harder and harder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from zhiyin.data.splits import HeldOut
from zhiyin.evaluation.ranking import VectorScorer
from zhiyin.indexes.base import Index, IndexSpec, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.overlap import overlap

KNOBS = {"ef_search": (8, 16, 32, 64, 128, 256, 512), "nprobe": (1, 2, 4, 8, 16, 32, 64, 128)}
"""What says how hard a backend looks, and what is tried."""

QUERIES = 1000
"""Held-out queries that are searched at most where nobody asked for all."""


def some(held: HeldOut) -> HeldOut:
    """`QUERIES` of them, evenly spread; all where they are no more."""
    chosen = np.linspace(0, len(held) - 1, min(len(held), QUERIES)).astype(np.int64)
    return HeldOut(held.starts[chosen], held.stops[chosen])


@dataclass(frozen=True, slots=True)
class Point:
    """overlap@k with exact search, and the median time of one query alone."""

    effort: int
    overlap: float
    milliseconds: float


def curve(spec: IndexSpec, path: Path, vectors: Vectors, queries: Vectors, k: int) -> tuple[str, list[Point]]:
    """The name of the spec's knob, and a point for each of its values and the spec's own, of the index that it saved at
    `path`; no point where the spec has no knob. Queries [n, d]."""
    knob = next((field.name for field in fields(cast(Any, spec)) if field.name in KNOBS), "")
    if not knob:
        return "", []
    wanted = Exact().build(vectors).search(queries, k)
    points = []
    for effort in sorted({*KNOBS[knob], getattr(spec, knob)}):
        index = cast(IndexSpec, replace(cast(Any, spec), **{knob: effort})).load(path, vectors)
        found = overlap(index.search(queries, k), wanted)
        points.append(Point(effort, found, _milliseconds(index, queries, k)))
    return knob, points


def index_part(
    spec: IndexSpec, path: Path, vectors: Vectors, scorer: VectorScorer, held: HeldOut, k: int
) -> dict[str, Any] | None:
    """What the page shows of an index: its curve, and with how much `effort` it is served; None for one that looks
    everywhere. The vectors [m, d] are the scorer's."""
    users = scorer.users(some(held).starts).cpu().numpy()
    knob, points = curve(spec, path, vectors, np.ascontiguousarray(users[:, 0]), k)
    if not points:
        return None
    return {
        "name": type(spec).__name__,
        "knob": knob,
        "effort": getattr(spec, knob),
        "k": k,
        "queries": len(users),
        "points": [{name: getattr(point, name) for name in point.__slots__} for point in points],
    }


def _milliseconds(index: Index, queries: Sequence[np.ndarray] | Vectors, k: int) -> float:
    times = []
    for query in queries:
        since = time.perf_counter()
        index.search(query[None], k)
        times.append(time.perf_counter() - since)
    return 1e3 * float(np.median(times))
