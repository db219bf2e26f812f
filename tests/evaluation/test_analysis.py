"""The document behind the page: its figures against a slow, plain computation of each."""

import json
from typing import Any

import numpy as np
import pytest

from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split, TimeCut
from zhiyin.data.worlds import tastes
from zhiyin.errors import SpecError
from zhiyin.evaluation.analysis import analyse
from zhiyin.evaluation.lists import one_hot
from zhiyin.evaluation.ranking import Scorer
from zhiyin.evaluation.report import Measured, measure

K = 20


@pytest.fixture(scope="module")
def data() -> Prepared:
    return tastes(users=150, items=90, groups=9, events_per_user=12, seed=0, interests=3).data


@pytest.fixture(scope="module")
def split(data: Prepared) -> Split:
    return TimeCut().split(data.events, True)


@pytest.fixture(scope="module")
def measured(data: Prepared, split: Split) -> Measured:
    scorers: dict[str, Scorer] = {"item-kNN": ItemKNN().fit(data, split), "popularity": Popularity().fit(data, split)}
    return measure(scorers, data, split.test, ks=(5, K, 50))


@pytest.fixture(scope="module")
def document(measured: Measured, data: Prepared, split: Split) -> dict[str, Any]:
    traits = one_hot(data.item_table["category"])
    found = analyse(measured, data, split, columns=("country", "category"), traits=traits)
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return plain


def test_it_says_what_the_report_says(document: dict[str, Any], measured: Measured) -> None:
    assert document.items() >= json.loads(json.dumps(measured.report.to_json())).items()
    for scorer, row in document["intervals"].items():
        for name, (mean, low, high) in row.items():
            assert mean == pytest.approx(measured.report.value(scorer, name))
            assert low <= mean <= high
        assert row["recall@20"][1] < row["recall@20"][2]


def test_curves_rise_to_the_longest_list(document: dict[str, Any], measured: Measured) -> None:
    for scorer, curve in document["curves"].items():
        assert [int(k) for k in curve] == [1, 2, 3, 5, 7, 10, 15, 20, 30, 50]
        points = [mean for mean, _, _ in curve.values()]
        assert points == sorted(points)
        assert points[-1] == pytest.approx(measured.report.value(scorer, "recall@50"))


def plain_recall(measured: Measured, scorer: str, query: int, wanted: set[int]) -> float:
    found = set(measured.ranked[scorer].found[query, :K].tolist())
    return len(found & wanted) / len(wanted)


def part(document: dict[str, Any], of: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        p for s in document["slices"] if s["name"] == of for p in s["parts"] if p["name"] == name
    )
    return found


@pytest.mark.parametrize("scorer", ["item-kNN", "popularity"])
def test_a_part_of_the_users_is_measured_on_its_queries(
    scorer: str, document: dict[str, Any], measured: Measured, data: Prepared
) -> None:
    countries = data.user_table["country"][measured.users]
    queries = np.flatnonzero(countries == "fr")
    wanted = [set(measured.targets.rows[measured.targets.queries == query].tolist()) for query in queries]
    expected = [plain_recall(measured, scorer, int(q), w) for q, w in zip(queries, wanted, strict=True)]
    found = part(document, "user's country", "fr")
    assert found["queries"] == len(queries)
    mean, low, high = found["scorers"][scorer][f"recall@{K}"]
    assert mean == pytest.approx(np.mean(expected))
    assert low <= mean <= high


@pytest.mark.parametrize("scorer", ["item-kNN", "popularity"])
def test_a_part_of_the_items_is_measured_on_its_targets(
    scorer: str, document: dict[str, Any], measured: Measured, data: Prepared
) -> None:
    categories = data.item_table["category"]
    expected = []
    for query in range(measured.report.queries):
        rows = measured.targets.rows[measured.targets.queries == query].tolist()
        wanted = {row for row in rows if categories[row] == "group 1"}
        if wanted:
            expected.append(plain_recall(measured, scorer, query, wanted))
    found = part(document, "item's category", "group 1")
    assert found["queries"] == len(expected)
    assert found["scorers"][scorer][f"recall@{K}"][0] == pytest.approx(np.mean(expected))


def test_an_empty_part_has_no_figures(document: dict[str, Any]) -> None:
    empty = [p for s in document["slices"] for p in s["parts"] if not p["queries"]]
    assert empty
    assert all(p["scorers"] == {} for p in empty)


def test_popularity_finds_the_head_and_nothing_of_the_tail(document: dict[str, Any]) -> None:
    groups = document["popularity"]
    assert sum(groups["items"]) == 90
    assert sum(groups["targets"]) == pytest.approx(1)
    assert sum(groups["scorers"]["popularity"][:5]) > sum(groups["scorers"]["item-kNN"][:5])
    lists = document["lists"]
    assert lists["popularity"][f"popularity lift@{K}"] > lists["item-kNN"][f"popularity lift@{K}"] > 0
    assert lists["popularity"][f"novelty@{K}"] < lists["item-kNN"][f"novelty@{K}"]
    assert lists["popularity"][f"gini@{K}"] > lists["item-kNN"][f"gini@{K}"]
    assert 0 < lists["item-kNN"][f"diversity@{K}"] < 1


def test_what_a_channel_adds(document: dict[str, Any], measured: Measured) -> None:
    found = document["increments"]
    assert found["alone"]["item-kNN"] == pytest.approx(measured.report.value("item-kNN", f"recall@{K}"))
    assert found["union"] == pytest.approx(found["alone"]["popularity"] + found["adds"]["item-kNN"])


def test_the_first_scorer_is_compared_with_the_others(document: dict[str, Any], measured: Measured) -> None:
    one = document["differences"]["popularity"]["recall@20"]
    mine, theirs = measured.report.value("item-kNN", "recall@20"), measured.report.value("popularity", "recall@20")
    assert one["difference"] == pytest.approx(mine - theirs)
    assert one["low"] <= one["difference"] <= one["high"]
    assert one["p"] < 0.01


def test_a_wrong_column_is_refused(measured: Measured, data: Prepared, split: Split) -> None:
    with pytest.raises(SpecError, match="did you mean 'country'"):
        analyse(measured, data, split, columns=("contry",))
