"""What every baseline must do, run on each that the package brings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zhiyin import spec
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, Split, TimeCut
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.data.worlds import Tastes, tastes
from zhiyin.evaluation.ranking import Scorer, VectorScorer, rank
from zhiyin.evaluation.report import evaluate

BASELINES = spec.examples("zhiyin.baselines")
ITEMS = 120


@pytest.fixture(scope="module")
def world() -> Tastes:
    return tastes(users=300, items=ITEMS, groups=6, events_per_user=12, seed=0, skew=0.8)


@pytest.fixture(scope="module")
def split(world: Tastes) -> Split:
    """A time cut: some held-out users have no training event."""
    return TimeCut().split(world.data.events, True)


@pytest.fixture(params=BASELINES, ids=repr)
def baseline(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def scorer(baseline: Any, world: Tastes, split: Split) -> Scorer:
    fitted: Scorer = baseline.fit(world.data, split)
    return fitted


def test_the_house_has_all_five_kinds() -> None:
    found = {type(example).__name__ for example in BASELINES}
    assert found == {"Popularity", "ItemKNN", "EASE", "ALS", "BPR"}


def test_every_item_has_a_finite_score_for_one_query_and_for_seven(scorer: Scorer, split: Split) -> None:
    seven = scorer.scores(split.test.starts[:7])
    assert seven.shape == (7, ITEMS)
    assert seven.dtype == torch.float32
    assert torch.isfinite(seven).all()
    for at, event in enumerate(split.test.starts[:7]):
        torch.testing.assert_close(scorer.scores(np.array([event]))[0], seven[at], atol=1e-5, rtol=1e-4)


def test_scores_may_be_overwritten(scorer: Scorer, split: Split) -> None:
    before = scorer.scores(split.test.starts[:3]).clone()
    scorer.scores(split.test.starts[:3]).fill_(-7)
    assert torch.equal(scorer.scores(split.test.starts[:3]), before)


def test_a_user_without_history_gets_an_answer(scorer: Scorer, world: Tastes) -> None:
    firsts = world.data.events.offsets[:5]  # each user's first event: nothing before it
    assert torch.isfinite(scorer.scores(firsts)).all()
    found = rank(scorer, world.data, HeldOut(firsts, firsts + 1), 10)
    assert (found != UNKNOWN).all()


def test_what_is_seen_does_not_come_back(scorer: Scorer, world: Tastes, split: Split) -> None:
    found = rank(scorer, world.data, split.test, ITEMS)
    for row, event in zip(found, split.test.starts, strict=True):
        assert not set(row.tolist()) & set(world.data.events.history(int(event)).tolist())


def test_it_beats_chance_by_far(scorer: Scorer, world: Tastes, split: Split) -> None:
    report = evaluate({"it": scorer}, world.data, split.test, ks=(10,))
    assert report.value("it", "recall@10") > 1.8 * 10 / ITEMS


def test_two_fits_are_one(baseline: Any, scorer: Scorer, world: Tastes, split: Split) -> None:
    again = baseline.fit(world.data, split)
    assert torch.equal(again.scores(split.test.starts), scorer.scores(split.test.starts))


def test_the_seed_is_the_only_chance(baseline: Any, scorer: Scorer, world: Tastes, split: Split) -> None:
    if not hasattr(baseline, "seed"):
        return
    other = replace(baseline, seed=1).fit(world.data, split)
    assert not torch.allclose(other.scores(split.test.starts), scorer.scores(split.test.starts), atol=1e-3)


def changed(data: Prepared, events: np.ndarray) -> Prepared:
    """The same log with other items at these events."""
    log = data.events
    items = log.items.copy()
    items[events] = (items[events] + 7) % ITEMS
    return replace(data, events=EventLog(log.users, items, log.times, log.offsets, log.columns))


def test_the_future_has_no_way_in(baseline: Any, scorer: Scorer, world: Tastes, split: Split) -> None:
    """Whatever happens from the held-out events on, the scores are the same."""
    later = np.concatenate([np.arange(a, b) for a, b in zip(split.test.starts, split.test.stops, strict=True)])
    other = baseline.fit(changed(world.data, later), split)
    assert torch.equal(other.scores(split.test.starts), scorer.scores(split.test.starts))


def test_a_log_with_unknown_items_is_no_matter(baseline: Any, world: Tastes, split: Split) -> None:
    log = world.data.events
    items = log.items.copy()
    items[::9] = UNKNOWN
    data = replace(world.data, events=EventLog(log.users, items, log.times, log.offsets, log.columns))
    scores: Tensor = baseline.fit(data, split).scores(split.test.starts)
    assert torch.isfinite(scores).all()
    assert evaluate({"it": baseline.fit(data, split)}, data, split.test, ks=(10,)).value("it", "recall@10") > 0.1


def test_its_vectors_give_its_scores(scorer: Scorer, split: Split) -> None:
    if not isinstance(scorer, VectorScorer):
        return
    products = (scorer.users(split.test.starts[:9]) @ scorer.items.T).amax(1)
    torch.testing.assert_close(products, scorer.scores(split.test.starts[:9]))
