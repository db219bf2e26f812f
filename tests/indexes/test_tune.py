"""Tuning: with backends and a clock whose answer is known, and with the real ones."""

import gc
import json
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin import spec
from zhiyin.errors import SearchError, SpecError
from zhiyin.indexes import tune as tuning
from zhiyin.indexes.auto import Auto
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.hnsw import HNSW
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.indexes.ivf_pq import IVFPQ
from zhiyin.indexes.ivf_sq import IVFSQ8
from zhiyin.indexes.measuring import Bench, least_effort, overlaps
from zhiyin.indexes.scann import ScaNN
from zhiyin.indexes.tunable import rungs
from zhiyin.indexes.tune import FAMILIES, choose, tune


def gaussian(count: int, seed: int, dim: int = 16) -> Vectors:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


VECTORS, USERS = gaussian(1500, 1), gaussian(150, 2)


@dataclass
class FakeClock:
    """Moves only when told."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = FakeClock()


@dataclass(frozen=True)
class FakeIndex:
    """Finds the first `effort` hundredths of the true top k, and takes `effort · cost` ms for a query."""

    vectors: Vectors
    spec: Any

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        CLOCK.now += len(queries) * self.spec.effort * self.spec.cost * 1e-3
        hits = Exact().build(self.vectors).search(queries, k)
        hits.rows[:, round(k * min(self.spec.effort, self.spec.best) / 100) :] = -1
        return hits

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def searched_with(self, settings: Any) -> "FakeIndex":
        return FakeIndex(self.vectors, settings)


@dataclass(frozen=True)
class CostlyExact:
    """Exact search that takes a second for a query by the fake clock."""

    index: Any

    def __len__(self) -> int:
        return len(self.index)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        CLOCK.now += len(queries)
        found: Hits = self.index.search(queries, k, allowed)
        return found


@dataclass(frozen=True)
class Costly:
    """Stands in for `Exact` in the contest, not in the truth."""

    def build(self, vectors: Vectors) -> CostlyExact:
        return CostlyExact(Exact().build(vectors))


@dataclass(frozen=True)
class Slow:
    """Never finds more than `best` hundredths; a build takes `building` ms a vector."""

    effort: int = 1
    cost: ClassVar[float] = 3.0
    best: ClassVar[int] = 100
    building: ClassVar[float] = 0.01
    bytes: ClassVar[int] = 10
    there: ClassVar[bool] = True
    small: ClassVar[bool] = True

    @classmethod
    def candidates(cls, size: int, dim: int, seed: int) -> "tuple[Slow, ...]":
        return (cls(),)

    def ladders(self, size: int, k: int) -> "tuple[tuple[Slow, ...], ...]":
        return (tuple(type(self)(effort) for effort in range(1, 101)),)

    def with_cells(self, size: int, ratio: float) -> "Slow | None":
        return None

    def memory(self, size: int, dim: int) -> int:
        return size * self.bytes

    def growth(self) -> float:
        return 1.0

    def foretells(self) -> bool:
        return self.small

    def installed(self) -> bool:
        return self.there

    def build(self, vectors: Vectors) -> FakeIndex:
        CLOCK.now += self.building * 1e-3 * len(vectors)
        return FakeIndex(vectors, self)


class Fast(Slow):
    cost = 1.0


@dataclass(frozen=True)
class Celled(Slow):
    """Takes longer the farther its cells are from the best number of them."""

    cells: int = 16
    wanted: ClassVar[int] = 4

    @property
    def cost(self) -> float:  # type: ignore[override]
        return 1.0 + abs(float(np.log2(self.cells / self.wanted)))

    def ladders(self, size: int, k: int) -> "tuple[tuple[Slow, ...], ...]":
        return (tuple(replace(self, effort=effort) for effort in range(1, 101)),)

    def with_cells(self, size: int, ratio: float) -> "Slow | None":
        return replace(self, cells=round(self.cells * ratio)) if self.cells * ratio >= 1 else None


class Finer(Celled):
    wanted = 64


class FastAndBig(Slow):
    cost, bytes = 0.99, 1000


class Blind(Slow):
    cost, best = 0.1, 60


class Laborious(Slow):
    cost, building = 0.1, 100.0


class Absent(Slow):
    cost, there = 0.1, False


class Unfair(Slow):
    """Finds half as much for a query that begins with a number below 0."""

    def ladders(self, size: int, k: int) -> "tuple[tuple[Slow, ...], ...]":
        return (tuple(type(self)(effort) for effort in range(1, 201)),)

    def build(self, vectors: Vectors) -> FakeIndex:
        return UnfairIndex(vectors, self)


class UnfairIndex(FakeIndex):
    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        hits = super().search(queries, k, allowed)
        hits.rows[queries[:, 0] < 0, round(k * self.spec.effort / 200) :] = -1
        return hits

    def searched_with(self, settings: Any) -> FakeIndex:
        return UnfairIndex(self.vectors, settings)


def faked(goal: Auto, families: Sequence[Any], vectors: Vectors = VECTORS[:500], users: Vectors = USERS[:40]) -> Any:
    CLOCK.now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "Exact", Costly)
        return tune(vectors, users, goal, clock=CLOCK, families=families)


def whys(tuned: Any) -> dict[str, str]:
    return {one["index"]["use"].split(":")[1]: one["why"] for one in tuned.measured["left_out"]}


def test_the_fastest_that_reaches_the_target_wins_at_the_least_effort_that_does() -> None:
    for families in ((Slow, Fast, Blind), (Fast, Blind, Slow)):
        tuned = faked(Auto(overlap=0.8), families)
        assert tuned.spec == Fast(80)
        assert tuned.measured["chosen"]["overlap"] == pytest.approx(0.8)
        assert tuned.measured["chosen"]["held_out_overlap"] == pytest.approx(0.8)
        assert tuned.measured["chosen"]["queries_per_second"] == pytest.approx(1000 / 80, rel=0.01)


def test_of_two_equally_fast_the_smaller_wins() -> None:
    assert faked(Auto(overlap=0.8), (FastAndBig, Fast)).spec == Fast(80)
    assert faked(Auto(overlap=0.8), (Fast, FastAndBig)).spec == Fast(80)


def test_exact_search_answers_where_nothing_reaches_the_target() -> None:
    tuned = faked(Auto(overlap=0.8), (Blind,))
    assert tuned.spec == Costly()
    assert tuned.measured["chosen"]["held_out_overlap"] == 1.0
    assert [p["index"]["use"] for p in tuned.measured["curve"]] == [f"{__name__}:Costly"]


def test_who_is_left_out_and_why_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SAMPLE", 250)
    monkeypatch.setattr(tuning, "PILOT", 100)
    goal = Auto(overlap=0.8, memory_mb=1, build_seconds=20)
    tuned = faked(goal, (Slow, Fast, FastAndBig, Absent, Laborious), VECTORS)
    assert tuned.spec == Fast(80)
    assert whys(tuned) == {
        "Slow": "0.33 of the fastest's speed on the sample",
        "FastAndBig": "it would hold 2 MB",
        "Absent": "its package is not installed",
        "Laborious": "a build would take about 150 s",
    }


def test_the_time_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build that would not fit into what is left is not begun; with more time it is."""
    monkeypatch.setattr(tuning, "SAMPLE", 250)
    monkeypatch.setattr(tuning, "CLOSE", 0.0)
    monkeypatch.setattr(Slow, "building", 20.0)
    monkeypatch.setattr(Slow, "small", False)
    tuned = faked(Auto(overlap=0.8, seconds=140), (Slow, Fast), VECTORS)
    assert tuned.spec == Fast(80)
    assert whys(tuned) == {"Slow": "a build would take about 30 s"}
    assert whys(faked(Auto(overlap=0.8, seconds=1000), (Slow, Fast), VECTORS)) == {}


def test_the_curve_rises_in_overlap_and_falls_in_speed_and_holds_the_choice() -> None:
    curve = faked(Auto(overlap=0.8), (Fast,)).measured["curve"]
    shares, speeds = [p["overlap"] for p in curve], [p["queries_per_second"] for p in curve]
    assert shares == sorted(shares)
    assert speeds == sorted(speeds, reverse=True)
    assert len(curve) >= 6
    assert min(shares) < 0.2
    assert max(shares) > 0.9
    assert {"use": f"{__name__}:Fast", "effort": 80} in [p["index"] for p in curve]


def test_an_overlap_that_is_uncertain_must_exceed_the_target() -> None:
    """The mean less one standard error decides: on queries of unequal difficulty, a bare mean is not enough."""
    bench = Bench.of(VECTORS, USERS, 10, 1, CLOCK)
    index = IVFFlat(nlist=32, nprobe=8, seed=0).build(VECTORS)
    shares = overlaps(index.search(USERS, 10), bench.truth)
    mean, error = bench.overlap(index)
    assert mean == pytest.approx(shares.mean())
    assert error == pytest.approx(shares.std() / np.sqrt(len(USERS)))
    tuned = tune(VECTORS, USERS, Auto(overlap=0.9, k=10), families=(IVFFlat,))
    chosen = tuned.measured["chosen"]
    assert chosen["overlap"] - chosen["standard_error"] >= 0.9


def test_queries_held_out_must_reach_the_target_too() -> None:
    """Those that it is chosen with are easy here, those held out are hard."""
    users, order = np.abs(USERS[:40]), np.random.default_rng(0).permutation(40)
    users[order[1::2]] *= -1
    tuned = faked(Auto(overlap=0.9, k=20), (Unfair,), users=users)
    assert tuned.measured["chosen"]["overlap"] == 1.0
    assert 0.9 <= tuned.measured["chosen"]["held_out_overlap"] <= 0.95


def test_other_numbers_of_cells_are_tried_while_they_make_the_winner_faster() -> None:
    """Four cells are best here: 16 → 8 → 4 is climbed, 2 is tried and refused."""
    tuned = faked(Auto(overlap=0.8, seconds=1000), (Celled,))
    assert tuned.spec == Celled(80, 4)
    tried = {p["index"].get("cells", 16) for p in tuned.measured["catalogue"] if "Celled" in p["index"]["use"]}
    assert tried == {16, 8, 4, 2}
    assert tuned.measured["chosen"]["queries_per_second"] == pytest.approx(1000 / 80, rel=0.01)
    more = faked(Auto(overlap=0.8, seconds=1000), (Finer,))
    assert more.spec == Finer(80, 64)
    short = faked(Auto(overlap=0.8, seconds=1000, build_seconds=0.011), (Finer,))
    assert short.spec == Finer(80, 16)
    assert whys(short) == {"Finer": "a build would take about 0 s"}


class Ahead(Slow):
    cost = 2.0


class Celled8(Celled):
    """Behind `Ahead` with the cells it begins with, far ahead with an eighth of them."""

    wanted = 2


def test_a_rival_may_win_with_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lead over cells that do not suit the rival is none; who is far behind is not tried."""
    monkeypatch.setattr(tuning, "RIVAL", 0.4)
    tuned = faked(Auto(overlap=0.8, seconds=1000), (Ahead, Celled8))
    assert tuned.spec == Celled8(80, 2)
    assert tuned.measured["catalogue"][1]["queries_per_second"] == pytest.approx(1000 / 160, rel=0.01)
    monkeypatch.setattr(tuning, "RIVAL", 0.6)
    assert faked(Auto(overlap=0.8, seconds=1000), (Ahead, Celled8)).spec == Ahead(80)


class Near(Slow):
    cost = 1.2


class Slower(Slow):
    cost = 4.0


class Slowest(Slow):
    cost = 5.0


def test_indexes_that_lost_are_given_back_before_the_next_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those of the whole catalogue only the winner so far and its rivals live: not a former winner, which the sample
    had flattered, nor whoever lost last."""
    monkeypatch.setattr(tuning, "SAMPLE", 250)
    monkeypatch.setattr(tuning, "PILOT", 100)
    monkeypatch.setattr(tuning, "CLOSE", 0.0)
    made: list[weakref.ref[FakeIndex]] = []
    seen: list[tuple[str, set[str]]] = []
    speed, build, other, cells = Bench.speed, Slow.build, FakeIndex.searched_with, tuning._with_best_cells

    def flattering(bench: Bench, index: Any) -> float:
        return speed(bench, index) * (100 if isinstance(index, FakeIndex) and flattered(index) else 1)

    def flattered(index: FakeIndex) -> bool:
        return type(index.spec) is Slow and len(index) < len(VECTORS)

    def remembered(index: FakeIndex) -> FakeIndex:
        made.append(weakref.ref(index))
        return index

    def living() -> set[str]:
        gc.collect()
        there = [index for index in (one() for one in made) if index is not None]
        return {type(index.spec).__name__ for index in there if len(index) == len(VECTORS)}

    def building(entrant: Slow, vectors: Vectors) -> FakeIndex:
        if len(vectors) == len(VECTORS):
            seen.append((type(entrant).__name__, living()))
        return remembered(build(entrant, vectors))

    def ending(*rest: Any) -> Any:
        seen.append(("", living()))
        return cells(*rest)

    monkeypatch.setattr(Bench, "speed", flattering)
    monkeypatch.setattr(Slow, "build", building)
    monkeypatch.setattr(FakeIndex, "searched_with", lambda index, settings: remembered(other(index, settings)))
    monkeypatch.setattr(tuning, "_with_best_cells", ending)
    tuned = faked(Auto(overlap=0.8, seconds=10_000), (Slowest, Slower, Near, Fast, Slow), VECTORS)
    assert tuned.spec == Fast(80)
    assert seen == [
        ("Slow", set()),
        ("Fast", {"Slow"}),
        ("Near", {"Fast"}),
        ("Slower", {"Fast", "Near"}),
        ("Slowest", {"Fast", "Near"}),
        ("", {"Fast", "Near"}),
    ]
    assert living() == {"Fast"}


@dataclass(frozen=True)
class TwoWays(Slow):
    """Two ladders of the same speed by the clock, of which one is faster when they are asked in turns."""

    second: bool = False

    @property
    def cost(self) -> float:  # type: ignore[override]
        return 1.0 if self.second else 1.01

    def ladders(self, size: int, k: int) -> "tuple[tuple[Slow, ...], ...]":
        return tuple(tuple(replace(self, effort=e, second=way) for e in range(1, 101)) for way in (False, True))


def test_the_faster_of_two_ladders_is_found_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their speeds, measured one after the other, are 3 % in favour of the slower one: a neighbour was busy."""
    alone = Bench.speed
    monkeypatch.setattr(Bench, "speed", lambda self, index: alone(self, index) * (1.03 if not later(index) else 1.0))
    assert faked(Auto(overlap=0.8), (TwoWays,)).spec == TwoWays(80, second=True)


def later(index: Any) -> bool:
    return getattr(getattr(index, "spec", None), "second", False)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.__name__)
def test_with_other_cells_a_kind_of_index_stays_what_it_is(family: Any) -> None:
    first = family.candidates(100_000, 16, 0)[0]
    if family is HNSW:
        assert first.with_cells(100_000, 0.5) is None
        return
    half, twice = first.with_cells(100_000, 0.5), first.with_cells(100_000, 2.0)
    cells = "leaves" if family is ScaNN else "nlist"
    assert (getattr(half, cells), getattr(twice, cells)) == (632, 2530)
    assert half.with_cells(100_000, 2.0) == replace(first, **{cells: 1264})
    assert replace(half, **{cells: 0}) == first
    assert first.with_cells(100_000, 0.01) is None
    assert twice.with_cells(100_000, 2.0) is None


@given(first=st.integers(0, 60), size=st.integers(1, 61))
def test_least_effort_finds_the_first_rung_that_reaches(first: int, size: int) -> None:
    found = least_effort(range(size), lambda rung: (rung >= first, rung / 100))
    assert found == (first if first < size else None)


def test_least_effort_gives_up_where_overlap_stops_rising() -> None:
    asked: list[int] = []

    def reaches(rung: int) -> tuple[bool, float]:
        asked.append(rung)
        return False, min(rung, 20) / 100

    assert least_effort(range(1000), reaches) is None
    assert max(asked) < 130


@given(least=st.integers(1, 50), most=st.integers(1, 5000), ratio=st.floats(1.01, 3))
def test_rungs_rise_from_least_to_most(least: int, most: int, ratio: float) -> None:
    steps = rungs(least, most, ratio)
    assert steps[0] == least
    assert steps[-1] == max(least, most)
    assert (np.diff(steps) > 0).all()


@pytest.fixture(scope="module")
def tuned() -> Any:
    return tune(VECTORS, USERS, Auto(overlap=0.9, k=20, seconds=60))


def test_real_backends_reach_the_target_on_held_out_queries(tuned: Any) -> None:
    others = gaussian(500, 77)
    shares = overlaps(tuned.index.search(others, 20), Exact().build(VECTORS).search(others, 20))
    assert shares.mean() >= 0.88
    assert abs(shares.mean() - tuned.measured["chosen"]["overlap"]) <= 0.03
    assert tuned.measured["chosen"]["queries_per_second"] > 0
    tried = {p["index"]["use"].split(":")[1] for p in tuned.measured["sample"]}
    assert tried >= {"HNSW", "IVFFlat", "IVFSQ8", "IVFPQ", "ScaNN"}


def test_the_choice_is_a_spec_that_opens_what_was_saved_and_the_rest_is_json(tuned: Any, tmp_path: Path) -> None:
    tuned.index.save(tmp_path / "index.bin")
    table = json.loads(json.dumps(tuned.measured))["chosen"]["index"]
    again = spec.used_build(table, "zhiyin.indexes")
    assert again == tuned.spec
    opened = again.load(tmp_path / "index.bin", VECTORS)
    assert (opened.search(USERS, 20).rows == tuned.index.search(USERS, 20).rows).all()


def test_the_same_seed_and_times_give_the_same_answer() -> None:
    """By a clock that only exact search moves, nothing but the seed can decide."""
    goal, families, vectors = Auto(overlap=0.9, k=20), (IVFSQ8, IVFFlat), VECTORS[:800]
    one, other = faked(goal, families, vectors), faked(goal, families, vectors)
    assert one.spec == other.spec
    assert one.measured == other.measured
    assert one.spec != Costly()
    assert faked(replace(goal, seed=1), families, vectors).measured["chosen"] != one.measured["chosen"]


def test_two_threads_search_when_two_are_asked_for() -> None:
    """The first search of each waits for the other's: alone it would wait for ever."""
    index, both, seen = IVFFlat(nlist=16, nprobe=4).build(VECTORS), threading.Barrier(2, timeout=60), set[int]()

    def wait(queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()
        return search(queries, k, allowed)

    search, index.search = index.search, wait  # type: ignore[method-assign]
    assert Bench.of(VECTORS, USERS, 10, 2, clock=time.perf_counter).speed(index) > 0
    assert len(seen) == 2


def test_tuning_needs_queries_that_an_index_takes() -> None:
    with pytest.raises(SearchError, match="no queries to tune with.*held-out users"):
        tune(VECTORS, USERS[:0], Auto())
    with pytest.raises(SearchError, match=r"queries of shape \[150, 15\]"):
        tune(VECTORS, USERS[:, :15], Auto())
    with pytest.raises(SearchError, match="row 3 has a number that is not finite"):
        tune(np.where(np.arange(len(VECTORS))[:, None] == 3, np.float32(np.nan), VECTORS), USERS, Auto())


@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_catalogue_smaller_than_k_is_tuned_too(size: int) -> None:
    tuned = tune(VECTORS[:size], USERS[:1], Auto(seconds=20), families=(IVFSQ8, IVFFlat))
    assert tuned.measured["chosen"]["held_out_overlap"] == 1.0
    assert len(tuned.index) == size


def test_a_given_spec_is_built_and_nothing_is_tuned() -> None:
    chosen = choose(IVFFlat(nlist=8), VECTORS, USERS)
    assert chosen.spec == IVFFlat(nlist=8)
    assert chosen.measured == {}
    assert len(chosen.index) == len(VECTORS)
    assert choose(Auto(overlap=0.5, k=5, seconds=20), VECTORS[:300], USERS).measured["target"]["k"] == 5


def test_a_goal_out_of_range_is_refused() -> None:
    for wrong in ({"overlap": 0.0}, {"overlap": 1.5}, {"k": 0}, {"threads": 0}, {"seconds": -1.0}, {"memory_mb": -1}):
        with pytest.raises(SpecError, match="expected"):
            Auto(**wrong)
    assert spec.used_build({"use": "auto:Auto", "overlap": 0.9}, "zhiyin.indexes") == Auto(overlap=0.9)


@pytest.mark.parametrize("one", [HNSW(m=16, ef_construction=16), IVFFlat(), IVFSQ8(), IVFPQ()], ids=repr)
def test_the_memory_foretold_is_about_what_is_saved(one: Any, tmp_path: Path) -> None:
    vectors = gaussian(4000, 3, dim=32)
    one.build(vectors).save(tmp_path / "index.bin")
    saved = (tmp_path / "index.bin").stat().st_size
    assert one.memory(*vectors.shape) == pytest.approx(saved, rel=0.15)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.__name__)
def test_every_rung_looks_harder_than_the_one_before(family: Any) -> None:
    """A ladder that stands still at its foot would be given up there."""
    built = family.candidates(len(VECTORS), 16, 0)[0].build(VECTORS)
    bench = Bench.of(VECTORS, USERS, 50, 1, CLOCK)
    for ladder in family.candidates(len(VECTORS), 16, 0)[0].ladders(len(VECTORS), 50):
        shares = [bench.overlap(built.searched_with(rung))[0] for rung in (ladder[0], ladder[len(ladder) // 2])]
        assert len(set(ladder)) == len(ladder)
        assert shares[1] > shares[0]


def test_scanns_memory_is_its_codes_and_its_copy_of_the_vectors() -> None:
    assert ScaNN().memory(1000, 64) == 1000 * (256 + 16 + 4)
    assert ScaNN in FAMILIES
