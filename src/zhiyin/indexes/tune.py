"""Which index finds enough, fastest? Measured on these vectors, with these queries.

    a sample of the vectors   every backend that is installed, each at the least effort that reaches the target
    the whole catalogue       the fastest of them are built, and their effort is found again; two at a time are timed
                              in turns, the faster one stays; it, and who comes close, is built again with half or
                              twice as many cells, as long as that makes it faster
    more queries              the winner's effort is settled
    held-out queries          what the winner is said to find is measured on queries that had no part in choosing it;
                              should they come to less than the target, its effort is raised

The sample, the split of the queries, the order of trying and the k-means of the faiss backends depend on the seed
alone. Times decide too: two runs may choose differently among indexes that are about as fast (`TIE`), of which the one
that holds less memory is taken, and may leave out a build for which a slower machine has no time. ScaNN's k-means has
no seed.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zhiyin import spec
from zhiyin.errors import SearchError
from zhiyin.indexes.auto import Auto
from zhiyin.indexes.base import Index, IndexSpec, Vectors
from zhiyin.indexes.checks import check_search, check_vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.hnsw import HNSW
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.indexes.ivf_pq import IVFPQ
from zhiyin.indexes.ivf_sq import IVFSQ8
from zhiyin.indexes.measuring import Bench, Clock, Point, least_effort
from zhiyin.indexes.scann import ScaNN
from zhiyin.indexes.tunable import Tunable, TunableIndex

FAMILIES: Sequence[type[Tunable]] = (IVFSQ8, IVFPQ, ScaNN, IVFFlat, HNSW)
"""In the order of trying."""

SAMPLE = 50_000
"""Vectors of the sample."""

PILOT = 4_000
"""Vectors of a build before that, for backends whose time a small one foretells."""

QUERIES, SEARCH_QUERIES, SAMPLE_QUERIES = 4_000, 1_000, 250
"""Half of `QUERIES` to choose with, half held out. Efforts are looked for with fewer, and the winner's is settled with
all of that half; fewer still on the sample."""

LEAST_K = 10
"""On the sample k shrinks with the vectors, down to this: else its top k lie farther off than the catalogue's."""

CLOSE = 0.5
"""What is slower than this share of the fastest on the sample is not built in full."""

RIVAL = 0.75
"""What reaches this share of the winner's speed may be ahead of it with other cells."""

TIE = 0.03
"""Speeds that differ by less are equal."""

CURVE_STEP = 16
"""Rungs between two points of the curve."""

BUILD_SHARE = 0.7
"""A build may take so much of the time that is left: measuring needs some too."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The `spec` whose `load` reads what `index` saves, and what was `measured` to choose it, plain enough for JSON;
    empty where nothing was tuned."""

    spec: IndexSpec
    index: Index
    measured: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One build and the way to search it that reaches the target fastest; its `point` is `Exact` where none does."""

    point: Point
    index: Index
    built: TunableIndex
    build_seconds: float
    memory: int


@dataclass(slots=True)
class Notes:
    """What a tuning saw, in order: `sample` and `catalogue` measurements, and who was left out, and why."""

    progress: Callable[[str], None]
    sample: list[Point] = field(default_factory=list)
    catalogue: list[Point] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)

    def leave_out(self, entrant: Any, why: str) -> None:
        self.left_out.append({"index": spec.used_table(entrant, "zhiyin.indexes"), "why": why})
        self.progress(f"{entrant}: left out, {why}")


def choose(
    wanted: IndexSpec | Auto, vectors: Vectors, queries: Vectors, progress: Callable[[str], None] = lambda _: None
) -> Tuned:
    """The index that a recipe wants, built: tuned with the queries [n, d] when it says `Auto`."""
    if isinstance(wanted, Auto):
        return tune(vectors, queries, wanted, progress)
    return Tuned(wanted, wanted.build(vectors), {})


def tune(
    vectors: Vectors,
    queries: Vectors,
    goal: Auto,
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock = time.perf_counter,
    families: Sequence[type[Tunable]] = FAMILIES,
) -> Tuned:
    """The fastest index of `vectors` [m, d] that finds `goal.overlap` of the exact top k of `queries` [n, d].

    `queries` should be users' vectors of held-out events; at most `QUERIES` of them are used, half to choose with (one
    query alone is both). Exact search is the answer where nothing else reaches the target. Raises `SearchError` without
    queries, and for vectors or queries that no index takes.
    """
    start, goal = clock(), goal.after()
    vectors = check_vectors(vectors)
    queries = check_search(queries, goal.k, None, *vectors.shape)
    if not len(queries):
        raise SearchError("no queries to tune with", where="index tuning", remedy="Give vectors of held-out users.")
    order = np.random.default_rng(goal.seed).permutation(len(queries))[:QUERIES]
    chosen, held_out = queries[order[::2]], queries[order[1::2] if len(order) > 1 else order]
    progress(f"exact search among {len(vectors):,} vectors")
    whole, notes = Bench.of(vectors, chosen, goal.k, goal.threads, clock), Notes(progress)
    held = Bench.of(vectors, held_out, goal.k, goal.threads, clock)
    bench = whole.first(SEARCH_QUERIES)
    exact: Index = Exact().build(vectors)
    baseline = Point(Exact(), 1.0, 0.0, bench.speed(exact))
    notes.catalogue.append(baseline)
    end = start + goal.seconds
    winner, rivals = _contest(bench, exact, _on_the_catalogue(bench, vectors, goal, end, notes, families))
    curve, index, seconds = [baseline], exact, 0.0
    if winner is not None:
        winner = _with_best_cells(bench, winner, rivals, vectors, goal, end, notes)
        winner = _settled(whole, held, winner, len(vectors), goal.overlap)
        curve, index, seconds = _curve(bench, winner, len(vectors)), winner.index, winner.build_seconds
    best = baseline if winner is None else winner.point
    measured = {
        "target": {"overlap": goal.overlap, "k": goal.k, "threads": goal.threads, "seed": goal.seed},
        "chosen": best.table()
        | {"held_out_overlap": round(held.overlap(index)[0], 5), "held_out_queries": len(held_out)}
        | {"build_seconds": round(seconds, 2)},
        "curve": [point.table() for point in curve],
        "catalogue": [point.table() for point in notes.catalogue],
        "sample": [point.table() for point in notes.sample],
        "left_out": notes.left_out,
        "seconds": round(clock() - start, 1),
    }
    return Tuned(best.spec, index, measured)


def _contest(bench: Bench, exact: Index, trials: Iterator[Trial]) -> tuple[Trial | None, list[Trial]]:
    """The fastest trial, timed in turns, None where exact search is faster; and those that come close to it. Indexes of
    the others are given back before the next is built."""
    winner: Trial | None = None
    close: list[Trial] = []
    for trial in trials:
        close.append(trial)
        if _wins(bench, trial, winner, exact):
            winner = trial
        if winner is not None:
            least = RIVAL * winner.point.speed
            close = [one for one in close if one.point.speed >= least]
        del trial
    return winner, [one for one in close if one is not winner]


def _on_the_catalogue(
    bench: Bench, vectors: Vectors, goal: Auto, end: float, notes: Notes, families: Sequence[type[Tunable]]
) -> Iterator[Trial]:
    """The trials that reached the target on the whole catalogue, most promising first."""
    ranked = _ranked(bench, vectors, goal, end, notes, families)
    built = 0
    for entrant, trial, predicted in ranked:
        share, left = trial.point.speed / ranked[0][1].point.speed, BUILD_SHARE * (end - bench.clock())
        if share < CLOSE:
            notes.leave_out(entrant, f"{share:.2f} of the fastest's speed on the sample")
        elif len(trial.index) == len(vectors):
            notes.catalogue.append(trial.point)
            yield trial
        elif predicted > (goal.build_seconds or math.inf) or (built and predicted > left):
            notes.leave_out(entrant, f"a build would take about {predicted:.0f} s")
        else:
            whole = _trial(bench, entrant, vectors, goal, notes, notes.catalogue)
            built += 1
            if whole is not None:
                yield whole
            del whole  # a loser's index must not outlast the contest


def _ranked(
    bench: Bench, vectors: Vectors, goal: Auto, end: float, notes: Notes, families: Sequence[type[Tunable]]
) -> list[tuple[Tunable, Trial, float]]:
    """Who reached the target on the sample (or on the whole of a small catalogue), the fastest first: what to build in
    full, its trial, and the seconds a full build will take."""
    small, sample = bench, vectors
    if len(vectors) > SAMPLE:
        rows = np.sort(np.random.default_rng(goal.seed).permutation(len(vectors))[:SAMPLE])
        sample = vectors[rows]
        k = min(goal.k, max(LEAST_K, goal.k * len(sample) // len(vectors)))
        small = Bench.of(sample, bench.queries[:SAMPLE_QUERIES], k, goal.threads, bench.clock)
    found = []
    for full, entrant in _entrants(families, len(vectors), len(sample), vectors.shape[1], goal, notes):
        limit = min(goal.build_seconds or math.inf, BUILD_SHARE * (end - bench.clock()))
        if (
            len(vectors) > SAMPLE
            and full.foretells()
            and (foretold := _foretold(entrant, vectors, bench.clock)) > limit
        ):
            notes.leave_out(full, f"a build would take about {foretold:.0f} s")
            continue
        trial = _trial(small, entrant, sample, goal, notes, notes.sample)
        if trial is not None:
            predicted = trial.build_seconds * (len(vectors) / len(sample)) ** full.growth()
            found.append((full, trial, predicted))
    return sorted(found, key=lambda one: -one[1].point.speed)


def _entrants(
    families: Sequence[type[Tunable]], size: int, sample: int, dim: int, goal: Auto, notes: Notes
) -> Iterator[tuple[Tunable, Tunable]]:
    """Each candidate that is installed and small enough: for the whole catalogue, and for the sample."""
    for family in families:
        pairs = zip(family.candidates(size, dim, goal.seed), family.candidates(sample, dim, goal.seed), strict=True)
        for full, entrant in pairs:
            if not full.installed():
                notes.leave_out(full, "its package is not installed")
            elif goal.memory_mb and full.memory(size, dim) > goal.memory_mb * 1e6:
                notes.leave_out(full, f"it would hold {full.memory(size, dim) / 1e6:.0f} MB")
            else:
                yield full, entrant


def _foretold(entrant: Tunable, vectors: Vectors, clock: Clock) -> float:
    """About how many seconds a full build will take, from a small one."""
    start = clock()
    entrant.build(np.ascontiguousarray(vectors[:PILOT]))
    seconds = clock() - start
    return float(seconds * (len(vectors) / PILOT) ** entrant.growth())


def _trial(
    bench: Bench, entrant: Tunable, vectors: Vectors, goal: Auto, notes: Notes, seen: list[Point]
) -> Trial | None:
    """Build it and find the fastest way to search that reaches the target; None where none does."""
    notes.progress(f"{entrant} of {len(vectors):,} vectors")
    start = bench.clock()
    built = entrant.build(vectors)
    seconds = bench.clock() - start
    found: list[tuple[Point, Index]] = []

    def reaches(settings: Any) -> tuple[bool, float]:
        overlap, error = bench.overlap(built.searched_with(settings))
        return overlap - error >= goal.overlap, overlap

    for ladder in entrant.ladders(len(vectors), bench.k):
        rung = least_effort(ladder, reaches)
        if rung is not None:
            index = built.searched_with(ladder[rung])
            found.append((bench.point(ladder[rung], index), index))
            seen.append(found[-1][0])
    if not found:
        return None
    point, index = _fastest(bench, found)
    return Trial(point, index, built, seconds, entrant.memory(*vectors.shape))


def _fastest(bench: Bench, found: Sequence[tuple[Point, Index]]) -> tuple[Point, Index]:
    """The fastest of some, those that seem so timed in turns."""
    best, *others = sorted(found, key=lambda one: -one[0].speed)
    for one in others:
        if one[0].speed >= RIVAL * best[0].speed and bench.faster(one[1], best[1]) > 1:
            best = one
    return best


def _with_best_cells(
    bench: Bench, winner: Trial, rivals: Sequence[Trial], vectors: Vectors, goal: Auto, end: float, notes: Notes
) -> Trial:
    """The winner, or a rival that is ahead of it, with the cells that suit them; the fastest rival first."""
    winner = _with_other_cells(bench, winner, vectors, goal, end, notes)
    for rival in sorted(rivals, key=lambda one: -one.point.speed):
        other = _with_other_cells(bench, rival, vectors, goal, end, notes)
        if other is not rival and bench.faster(other.index, winner.index) > 1 + TIE:
            winner = other
    return winner


def _with_other_cells(bench: Bench, winner: Trial, vectors: Vectors, goal: Auto, end: float, notes: Notes) -> Trial:
    """The winner with half or twice as many cells, again and again, where that is faster. How many are best depends on
    how the vectors cluster, and the sample does not tell: what is best for it has other cells for the catalogue."""
    for ratio in (0.5, 2.0):
        first = winner
        while (entrant := winner.point.spec.with_cells(len(vectors), ratio)) is not None:
            predicted = winner.build_seconds * max(ratio, ratio**2)  # k-means sees more vectors, and more centres
            if predicted > min(goal.build_seconds or math.inf, BUILD_SHARE * (end - bench.clock())):
                notes.leave_out(entrant, f"a build would take about {predicted:.0f} s")
                break
            if goal.memory_mb and entrant.memory(*vectors.shape) > goal.memory_mb * 1e6:
                notes.leave_out(entrant, f"it would hold {entrant.memory(*vectors.shape) / 1e6:.0f} MB")
                break
            trial = _trial(bench, entrant, vectors, goal, notes, notes.catalogue)
            if trial is None or bench.faster(trial.index, winner.index) < 1 + TIE:
                break
            winner = trial
        if winner is not first:
            break
    return winner


def _wins(bench: Bench, trial: Trial, champion: Trial | None, exact: Index) -> bool:
    """Whether a trial is faster than the best so far, timed in turns."""
    ratio = bench.faster(trial.index, exact if champion is None else champion.index)
    if champion is not None and abs(ratio - 1) <= TIE:
        return trial.memory < champion.memory
    return ratio > 1


def _settled(bench: Bench, held: Bench, winner: Trial, size: int, goal: float) -> Trial:
    """The winner at the least effort that reaches the goal on more queries, some rungs up or down its ladder, and on
    those held out, too: publish will ask all of them."""
    ladder, rung = _ladder(winner, size, bench.k)

    def reaches(place: int) -> bool:
        overlap, error = bench.overlap(winner.built.searched_with(ladder[place]))
        return overlap - error >= goal

    if reaches(rung):
        while rung > 0 and reaches(rung - 1):
            rung -= 1
    else:
        while rung < len(ladder) - 1 and not reaches(rung + 1):
            rung += 1
        rung = min(rung + 1, len(ladder) - 1)
    while rung < len(ladder) - 1 and held.overlap(winner.built.searched_with(ladder[rung]))[0] < goal:
        rung += 1
    index = winner.built.searched_with(ladder[rung])
    return replace(winner, index=index, point=bench.point(ladder[rung], index))


def _ladder(winner: Trial, size: int, k: int) -> tuple[tuple[Any, ...], int]:
    """The ladder that the winner stands on, and its rung."""
    chosen = winner.point.spec
    ladder = next(ladder for ladder in chosen.ladders(size, k) if chosen in ladder)
    return ladder, ladder.index(chosen)


def _curve(bench: Bench, winner: Trial, size: int) -> list[Point]:
    """From little effort to much: the ladder that the winner stands on, a rung in `CURVE_STEP`."""
    ladder, here = _ladder(winner, size, bench.k)
    places = sorted({*range(here % CURVE_STEP, min(len(ladder), here + 3 * CURVE_STEP + 1), CURVE_STEP)})
    return [
        winner.point if p == here else bench.point(ladder[p], winner.built.searched_with(ladder[p])) for p in places
    ]
