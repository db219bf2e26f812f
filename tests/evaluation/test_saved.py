"""Two runs compared by their saved queries; and the towers through an index."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, LeaveLastOut, Split
from zhiyin.data.worlds import tastes
from zhiyin.errors import DataError
from zhiyin.evaluation import curve as curve_module
from zhiyin.evaluation.curve import index_part, some
from zhiyin.evaluation.metrics import METRICS
from zhiyin.evaluation.ranking import Scorer, rank
from zhiyin.evaluation.report import Measured, evaluate, measure
from zhiyin.evaluation.saved import Saved, compare
from zhiyin.evaluation.targets import targets
from zhiyin.evaluation.through import end_to_end
from zhiyin.indexes.base import Allowed, Hits, Index, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.ivf import IVFFlat


@pytest.fixture(scope="module")
def data() -> Prepared:
    return tastes(users=200, items=90, groups=5, events_per_user=10, seed=0).data


@pytest.fixture(scope="module")
def split(data: Prepared) -> Split:
    return LeaveLastOut().split(data.events, True)


@pytest.fixture(scope="module")
def measured(data: Prepared, split: Split) -> Measured:
    scorers: dict[str, Scorer] = {"item-kNN": ItemKNN().fit(data, split), "popularity": Popularity().fit(data, split)}
    return measure(scorers, data, split.test, ks=(5, 20))


def test_what_is_saved_is_what_is_opened(measured: Measured, data: Prepared, tmp_path: Path) -> None:
    saved = Saved.of(measured, data)
    saved.save(tmp_path / "test.npz")
    saved.save(tmp_path / "test.npz")
    opened = Saved.open(tmp_path / "test.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["test.npz"]
    assert (opened.protocol, opened.ks, list(opened.hits)) == (
        measured.report.words,
        (5, 20),
        ["item-kNN", "popularity"],
    )
    for name in opened.hits:
        np.testing.assert_array_equal(opened.hits[name], measured.ranked[name].hits)
    assert opened.users[0] == data.users.ids()[measured.users[0]]


def test_a_comparison_has_both_means_and_is_paired(measured: Measured, data: Prepared) -> None:
    saved = Saved.of(measured, data)
    found = compare(saved, saved, ("popularity", ""))
    assert (found.first, found.second, found.queries) == ("popularity", "item-kNN", measured.report.queries)
    assert set(found.metrics) == {f"{name}@{k}" for name in METRICS for k in (5, 20)}
    one = found.metrics["recall@20"]
    assert one.first == pytest.approx(measured.report.value("popularity", "recall@20"))
    assert one.second == pytest.approx(measured.report.value("item-kNN", "recall@20"))
    assert one.low <= one.difference <= one.high
    assert found.to_json()["metrics"]["recall@20"]["p"] == one.p
    assert compare(saved, saved).metrics["recall@20"].p == 1
    assert found.left_out == ()


def test_each_k_that_only_one_run_has_is_named(measured: Measured, data: Prepared, split: Split) -> None:
    popular: dict[str, Scorer] = {"popularity": Popularity().fit(data, split)}
    other = measure(popular, data, split.test, ks=(2, 20))
    found = compare(Saved.of(measured, data), Saved.of(other, data))
    assert set(found.metrics) == {f"{name}@20" for name in METRICS}
    assert found.left_out == (2, 5)
    assert found.to_json()["left_out"] == [2, 5]


def test_runs_of_other_catalogues_are_not_compared(measured: Measured, data: Prepared, tmp_path: Path) -> None:
    """Though they ask the same queries: among fewer items more is found. A file of before that was kept is taken."""
    saved = Saved.of(measured, data)
    with pytest.raises(DataError, match="one run ranked 90 items, the other 45: the fewer, the easier"):
        compare(saved, replace(saved, catalogue=45))
    saved.save(tmp_path / "test.npz")
    with np.load(tmp_path / "test.npz") as arrays:
        assert int(arrays["catalogue"]) == 90
        np.savez(tmp_path / "old.npz", **{name: arrays[name] for name in arrays.files if name != "catalogue"})
    old = Saved.open(tmp_path / "old.npz")
    assert compare(saved, old).metrics["recall@20"].difference == 0


def test_other_queries_are_refused_with_the_numbers(measured: Measured, data: Prepared, split: Split) -> None:
    saved = Saved.of(measured, data)
    other = measure(
        {"p": Popularity().fit(data, split)}, data, HeldOut(split.test.starts[7:], split.test.stops[7:]), ks=(5,)
    )
    with pytest.raises(
        DataError, match=f"did not ask the same queries: {measured.report.queries} and 193, of which 193"
    ):
        compare(saved, Saved.of(other, data))
    later = replace(saved, times=saved.times + 1)
    with pytest.raises(DataError, match="of which 0 are the same"):
        compare(saved, later)


def test_runs_that_treat_seen_items_otherwise_are_not_compared(
    measured: Measured, data: Prepared, split: Split
) -> None:
    """Though they ask the same queries for the same targets."""
    saved = Saved.of(measured, data)
    kept = Saved.of(measure({"p": Popularity().fit(data, split)}, data, split.test, ks=(5,), remove_seen=False), data)
    other = replace(saved, protocol=kept.protocol)
    with pytest.raises(DataError, match="one run let items of the history come back, the other did not.*--seen"):
        compare(saved, other)
    assert compare(other, other).metrics


def test_a_wrong_scorer_and_a_missing_or_foreign_file(measured: Measured, data: Prepared, tmp_path: Path) -> None:
    saved = Saved.of(measured, data)
    with pytest.raises(DataError, match=r"no scorer 'popular' \(did you mean 'popularity'\?\)"):
        compare(saved, saved, ("popular", ""))
    with pytest.raises(DataError, match=r"k = 5, 20, the other 7; expected a common k. .* again: -k 5,20"):
        compare(saved, replace(saved, ks=(7,)))
    with pytest.raises(DataError, match="no saved evaluation here.*zhiyin evaluate RECIPE --part validation` first"):
        Saved.open(tmp_path / "validation.npz")
    (tmp_path / "foreign.npz").write_bytes(b"no zip at all")
    with pytest.raises(DataError, match=r"foreign\.npz: not a saved evaluation"):
        Saved.open(tmp_path / "foreign.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"other\.npz: not a saved evaluation"):
        Saved.open(tmp_path / "other.npz")


@dataclass
class Random:
    """Towers without training: float vectors, so that no two scores are equal."""

    table: Tensor
    items: Tensor

    def users(self, events: Events) -> Tensor:
        return self.table[torch.from_numpy(events)]

    def scores(self, events: Events) -> Tensor:
        return (self.users(events) @ self.items.T).amax(1)


@pytest.fixture(params=[1, 3], ids=["one interest", "three interests"])
def towers(request: pytest.FixtureRequest, data: Prepared) -> Random:
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(len(data.events), request.param, 8, generator=generator)
    return Random(users, torch.randn(len(data.items), 8, generator=generator))


@pytest.mark.parametrize("remove_seen", [True, False])
def test_through_an_exact_index_nothing_is_lost(
    towers: Random, data: Prepared, split: Split, remove_seen: bool
) -> None:
    index = Exact().build(towers.items.numpy())
    found = end_to_end(index, towers, data, split.test, 15, remove_seen=remove_seen)
    exact = evaluate({"it": towers}, data, split.test, ks=(15,), remove_seen=remove_seen).value("it", "recall@15")
    assert found.overlap == 1
    assert (found.filter, found.selectivity, found.reach) == ("", 1, 1)
    assert found.recall == found.exact_recall == pytest.approx(exact)
    assert found.milliseconds > 0


def test_what_an_index_overlooks_is_missing_from_the_answer(towers: Random, data: Prepared, split: Split) -> None:
    index = IVFFlat(nlist=4, nprobe=1).build(towers.items.numpy())
    found = end_to_end(index, towers, data, split.test, 5)
    assert 0.3 < found.overlap < 0.98
    hits = 0
    most = int((split.test.starts - data.events.offsets[data.events.users[split.test.starts]]).max())
    for event in split.test.starts:
        answer = index.search(towers.users(np.array([event]))[0].numpy(), 5 + most)
        best: dict[int, float] = {}
        for row, score in zip(answer.rows.ravel().tolist(), answer.scores.ravel().tolist(), strict=True):
            best[row] = max(score, best.get(row, -np.inf))
        seen = {-1, *data.events.history(int(event)).tolist()}
        left = sorted((row for row in best if row not in seen), key=lambda row: -best[row])
        hits += int(data.events.items[event] in left[:5])
    assert found.recall == pytest.approx(hits / len(split.test))


def test_a_curve_has_a_point_for_each_effort(towers: Random, data: Prepared, split: Split, tmp_path: Path) -> None:
    vectors = towers.items.numpy()
    spec = IVFFlat(nlist=4, nprobe=2)
    spec.build(vectors).save(tmp_path / "index.bin")
    part = index_part(spec, tmp_path / "index.bin", vectors, towers, split.test, 5)
    assert part is not None
    assert (part["name"], part["knob"], part["effort"], part["k"]) == ("IVFFlat", "nprobe", 2, 5)
    overlaps = [point["overlap"] for point in part["points"]]
    assert min(overlaps[:2]) < 0.98
    assert overlaps[2:] == [1.0] * 6  # all four cells
    assert all(point["milliseconds"] > 0 for point in part["points"])
    served = index_part(IVFFlat(nlist=4, nprobe=3), tmp_path / "index.bin", vectors, towers, split.test, 5)
    assert served is not None
    assert [point["effort"] for point in served["points"]][:4] == [1, 2, 3, 4]  # its own among them


def test_an_index_that_looks_everywhere_has_no_curve(towers: Random, split: Split, tmp_path: Path) -> None:
    vectors = towers.items.numpy()
    Exact().build(vectors).save(tmp_path / "exact")
    assert index_part(Exact(), tmp_path / "exact", vectors, towers, split.test, 15) is None


def test_some_queries_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldOut(np.arange(0, 90, 3), np.arange(1, 91, 3))
    assert some(held).starts.tolist() == held.starts.tolist()
    monkeypatch.setattr(curve_module, "QUERIES", 4)
    few = some(held)
    assert few.starts.tolist() == [0, 27, 57, 87]
    assert (few.stops - few.starts == 1).all()


def test_a_filter_leaves_only_what_it_allows(towers: Random, data: Prepared, split: Split) -> None:
    allowed = np.arange(len(data.items)) % 3 == 0
    asked: list[Allowed | None] = []

    class Watched:
        def __init__(self, index: Index) -> None:
            self._index = index

        def __len__(self) -> int:
            return len(self._index)

        def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
            asked.append(allowed)
            return self._index.search(queries, k, allowed)

        def save(self, path: Path) -> None:
            self._index.save(path)

    index = Watched(Exact().build(towers.items.numpy()))
    found = end_to_end(index, towers, data, split.test, 5, allowed=allowed, filter="every third")
    assert found.filter == "every third"
    assert found.selectivity == pytest.approx(1 / 3)
    new = targets(data, split.test, remove_seen=True)
    assert found.reach == pytest.approx(allowed[new.rows].mean())
    assert asked
    assert all(one is allowed for one in asked)
    wanted = targets(data, split.test, remove_seen=True).among(allowed)
    kept = wanted.counts > 0
    ranked = rank(towers, data, HeldOut(split.test.starts[kept], split.test.stops[kept]), len(data.items))
    hits = 0
    for row, event in zip(ranked, split.test.starts[kept], strict=True):
        hits += int(data.events.items[event] in [r for r in row if r >= 0 and allowed[r]][:5])
    assert found.queries == kept.sum()
    assert found.recall == found.exact_recall == pytest.approx(hits / kept.sum())
    with pytest.raises(DataError, match="an index, filter 'none': no held-out query has a target that may be found"):
        end_to_end(index, towers, data, split.test, 5, allowed=np.zeros(len(data.items), bool), filter="none")
