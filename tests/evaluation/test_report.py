"""The evaluation as a whole: targets, the protocol in words, and data that is not as it should be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, LeaveLastOut, TimeCut
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.data.worlds import random_world, ring, ring_recall
from zhiyin.errors import DataError
from zhiyin.evaluation import targets as targets_module
from zhiyin.evaluation.report import evaluate, measure
from zhiyin.evaluation.targets import targets


class Next:
    """Knows the ring: the item after the newest is best, the others in order of row."""

    def __init__(self, data: Prepared) -> None:
        self._data = data

    def scores(self, events: Events) -> Tensor:
        scores = torch.zeros(len(events), len(self._data.items))
        for row, event in enumerate(events):
            history = self._data.events.history(int(event))
            if len(history):
                scores[row, (int(history[-1]) + 1) % len(self._data.items)] = 1
        return scores


@pytest.fixture(scope="module")
def walked() -> Prepared:
    return ring(users=200, items=12, events_per_user=8, noise=0.2, seed=0)


@given(st.integers(0, 50), st.booleans(), st.sampled_from([1, 3, 1 << 14]))
@settings(max_examples=40, deadline=None)
def test_targets_are_the_distinct_new_items_of_each_run(seed: int, remove_seen: bool, block: int) -> None:
    data = random_world(6, 8, 9, seed)
    held = TimeCut(0.3, 0.2).split(data.events, True).test
    data.events.items[held.starts[0]] = UNKNOWN
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets_module, "BLOCK", block)
        found = targets(data, held, remove_seen=remove_seen)
    assert found.count == len(held)
    for query, (start, stop) in enumerate(zip(held.starts, held.stops, strict=True)):
        wanted = set(data.events.items[start:stop].tolist())
        if remove_seen:
            wanted -= set(data.events.history(int(start)).tolist()) - {UNKNOWN}
        assert found.rows[found.queries == query].tolist() == sorted(wanted)
    np.testing.assert_array_equal(found.counts, [(found.queries == query).sum() for query in range(len(held))])


def test_who_knows_the_world_gets_what_can_be_got(walked: Prepared) -> None:
    split = LeaveLastOut().split(walked.events, True)
    report = evaluate({"next": Next(walked)}, walked, split.test, ks=(1, 3), remove_seen=False)
    assert report.value("next", "recall@1") == pytest.approx(ring_recall(12, 0.2, 1), abs=0.08)
    assert report.value("next", "recall@3") >= report.value("next", "recall@1")
    assert report.queries == 200


def test_the_protocol_is_stated(walked: Prepared) -> None:
    split = LeaveLastOut().split(walked.events, True)
    report = evaluate({"next": Next(walked)}, walked, split.test, split_words="test of X", end=split.end)
    for words in (
        "test of X. ",
        f"{report.queries:,} queries ({report.dropped:,} without a target that is new",
        "the whole catalogue of 12 items ranked exactly",
        "items already in the history are removed",
        "equal scores rank by catalogue row",
        "lists are shorter than 100, as the catalogue is",
    ):
        assert words in report.words
    assert report.queries + report.dropped == 200
    kept = evaluate({"next": Next(walked)}, walked, split.test, remove_seen=False)
    assert "may come back" in kept.words
    assert kept.dropped == 0


def test_queries_not_later_than_the_end_of_training_are_counted(walked: Prepared) -> None:
    last = LeaveLastOut().split(walked.events, True)
    firsts = walked.events.offsets[:-1]
    early = evaluate({"next": Next(walked)}, walked, HeldOut(firsts, firsts + 1), end=last.end)
    assert "200 queries are not later than training's end" in early.words
    assert "200 queries have no history" in early.words
    cut = TimeCut(0.2, 0.2).split(walked.events, True)
    late = evaluate({"next": Next(walked)}, walked, cut.test, end=cut.end)
    assert "training's end" not in late.words


def test_a_target_outside_the_catalogue_is_missed_and_said(walked: Prepared) -> None:
    split = LeaveLastOut().split(walked.events, True)
    log = walked.events
    items = log.items.copy()
    items[split.test.starts[:50]] = UNKNOWN
    other = replace(walked, events=EventLog(log.users, items, log.times, log.offsets, log.columns))
    report = evaluate({"next": Next(other)}, other, split.test, ks=(12,), remove_seen=False)
    assert "50 targets are outside the catalogue and count as missed" in report.words
    assert report.value("next", "recall@12") == pytest.approx(150 / 200)


def test_fewer_items_than_k(walked: Prepared) -> None:
    split = LeaveLastOut().split(walked.events, True)
    row = evaluate({"next": Next(walked)}, walked, split.test, ks=(50,), remove_seen=False).rows["next"]
    assert (row["recall@50"], row["coverage@50"]) == (1, 1)
    assert row["precision@50"] == pytest.approx(1 / 50)


def test_nothing_to_ask_is_an_error_with_a_way_out(walked: Prepared) -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(DataError, match="no event is held out"):
        evaluate({"next": Next(walked)}, walked, HeldOut(none, none))
    user = np.flatnonzero([len(set(walked.events.items[a : a + 8].tolist())) < 8 for a in walked.events.offsets[:-1]])[
        0
    ]
    start = int(walked.events.offsets[user])
    repeated = next(
        e for e in range(start + 1, start + 8) if walked.events.items[e] in walked.events.history(e).tolist()
    )
    held = HeldOut(np.array([repeated]), np.array([repeated + 1]))
    with pytest.raises(DataError, match=r"no held-out query has a target that is new.*seen items kept"):
        evaluate({"next": Next(walked)}, walked, held)


def test_the_numbers_of_the_queries_have_the_means_of_the_report(walked: Prepared) -> None:
    split = LeaveLastOut().split(walked.events, True)
    measured = measure({"next": Next(walked)}, walked, split.test, ks=(2, 5))
    for name, values in measured.values("next").items():
        assert values.shape == (measured.report.queries,)
        assert measured.report.value("next", name) == pytest.approx(values.mean())
    np.testing.assert_array_equal(measured.users, walked.events.users[measured.asked.starts])
