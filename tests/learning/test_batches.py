"""Every example once, each with its own history, whatever runs it came in."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.learning.base import Negatives, Positives
from zhiyin.learning.batches import Draft, Shape, ahead, draft, epoch_order, pairs, stretch
from zhiyin.learning.distributed import Processes
from zhiyin.learning.examples import Examples

counts = st.lists(st.integers(0, 40), min_size=1, max_size=12)
shapes = st.builds(Shape, length=st.integers(1, 9), span=st.integers(1, 9), sequential=st.booleans()).filter(
    lambda shape: shape.span <= shape.length or not shape.sequential
)


def log_of(counts: list[int], seed: int = 0) -> EventLog:
    users = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    items = np.random.default_rng(seed).integers(0, 1000, len(users)).astype(np.int32)
    return EventLog.of(users, items, np.arange(len(users)), user_count=len(counts))


def none(positives: Positives) -> Negatives:
    nothing = np.zeros(0, np.int64)
    return Negatives(nothing, np.zeros(0, np.float32), np.zeros(len(positives), np.float32))


@given(counts, shapes, st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_every_example_once_in_runs(counts: list[int], shape: Shape, seed: int) -> None:
    log = log_of(counts)
    events = np.arange(len(log))[1:]
    order = epoch_order(log, events, shape, 0, np.random.default_rng(seed))
    assert sorted(order.tolist()) == events.tolist()
    together = (log.users[order[1:]] == log.users[order[:-1]]) & (order[1:] == order[:-1] + 1)
    assert together.sum() >= len(order) - sum(2 + count // shape.span for count in counts)


@given(counts, st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_cap_takes_so_many_of_each_user_anew_each_epoch(counts: list[int], cap: int, seed: int) -> None:
    log = log_of(counts)
    order = epoch_order(log, np.arange(len(log)), Shape(5, 4, False), cap, np.random.default_rng(seed))
    assert len(set(order.tolist())) == len(order)
    taken = np.bincount(log.users[order], minlength=len(counts))
    assert taken.tolist() == [min(count, cap) for count in counts]


def test_a_cap_draws_every_event_alike() -> None:
    log = log_of([20])
    drawn = [epoch_order(log, np.arange(20), Shape(5, 4, False), 5, np.random.default_rng(i)) for i in range(2000)]
    shares = np.bincount(np.concatenate(drawn), minlength=20) / 2000
    np.testing.assert_allclose(shares, 0.25, atol=0.05)


def test_runs_of_one_are_a_shuffle_and_long_users_are_cut_at_other_places_each_time() -> None:
    log = log_of([500])
    shuffled = epoch_order(log, np.arange(500), Shape(5, 1, False), 0, np.random.default_rng(0))
    assert (np.diff(shuffled) == 1).sum() < 10
    starts = set()
    for seed in range(60):
        order = epoch_order(log, np.arange(500), Shape(5, 10, False), 0, np.random.default_rng(seed))
        starts |= {int(event) % 10 for event in order[1:][np.diff(order) != 1]}
    assert len(starts) == 10


@given(counts, shapes, st.integers(1, 30), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_each_request_sees_the_history_of_its_event(counts: list[int], shape: Shape, size: int, seed: int) -> None:
    """For a model that pools windows: exactly the log's history. For a sequential one: its end, never anything else."""
    log = log_of(counts)
    order = epoch_order(log, np.arange(len(log)), shape, 0, np.random.default_rng(seed))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        parts = stretch(log, batch, shape)
        assert sorted(np.concatenate([part.events for part in parts]).tolist()) == sorted(batch.tolist())
        for part in parts:
            assert part.history.shape[1] <= (shape.length if shape.sequential else shape.reach + shape.span)
            for event, request in zip(part.events, part.requests, strict=True):
                run, _ = divmod(int(request), part.places.shape[1])
                happened = part.history[run, : part.places.flat[request]]
                seen = happened[-shape.length :].tolist() if len(happened) else []
                history = log.history(int(event))[-shape.length :].tolist()
                if shape.sequential:
                    assert seen == history[len(history) - len(seen) :]
                    assert len(seen) >= min(len(history), 1)
                else:
                    assert seen == history


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    most=st.integers(1, 9),
    span=st.integers(1, 12),
    sequential=st.booleans(),
    seed=st.integers(0, 99),
)
def test_baskets_are_learned_from_what_came_before_them(
    counts: list[int], most: int, span: int, sequential: bool, seed: int
) -> None:
    """Against a slow look at each event: of its window, what is earlier by the clock."""
    random, length = np.random.default_rng(seed), 12
    users = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    times = np.concatenate([np.sort(random.integers(0, 1 + count // most, count)) for count in counts]).astype(np.int64)
    log = EventLog.of(users, random.integers(0, 50, len(users)).astype(np.int32), times, user_count=len(counts))
    before = [int(np.sum((users[:at] == users[at]) & (times[:at] < times[at]))) for at in range(len(users))]
    np.testing.assert_array_equal(log.moments(np.arange(len(users))), log.offsets[users] + before)
    shape = Shape(length, span, sequential, baskets=True)
    order = epoch_order(log, np.arange(len(users)), shape, 0, random)
    for part in stretch(log, order, shape):
        assert not sequential or part.history.shape[1] <= length
        places = part.places.flatten()[part.requests]
        runs = part.requests // part.places.shape[1]
        for event, place, run in zip(part.events, places, runs, strict=True):
            first = log.offsets[users[event]]
            seen = log.items[first : first + before[event]][-length:]
            found = part.history[run, max(0, place - length) : place]
            assert found.tolist() == seen[len(seen) - len(found) :].tolist()
            if not sequential:
                assert len(found) == len(seen)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 12), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_without_an_order_an_example_has_all_the_others(counts: list[int], length: int, span: int, held: int) -> None:
    """Against a slow look at each event: the last of its user's training events, itself left out."""
    log = log_of(counts)
    ends = np.maximum(log.offsets[1:] - held, log.offsets[:-1] + 1)
    train = np.flatnonzero(np.arange(len(log)) < ends[log.users])
    shape = Shape(length, span, False, ends=ends)
    order = epoch_order(log, train, shape, 0, np.random.default_rng(held))
    told = []
    for part in stretch(log, order, shape):
        assert part.own is not None
        places, own = part.places.flatten()[part.requests], part.own.flatten()[part.requests]
        runs = part.requests // part.places.shape[1]
        for event, place, mine, run in zip(part.events, places, own, runs, strict=True):
            end = ends[log.users[event]]
            window = [at for at in range(max(log.offsets[log.users[event]], end - length), end) if at != event]
            seen = [int(row) for at, row in enumerate(part.history[run, :place]) if at != mine]
            assert seen == log.items[window].tolist()
            told.append(int(event))
    assert sorted(told) == train.tolist()


def test_runs_of_like_length_stand_together() -> None:
    log = log_of([100, 3, 3, 90, 2])
    parts = stretch(log, np.array([99, 100 + 2, 103 + 2, 106 + 89, 196 + 1]), Shape(64, 4, False))
    assert [part.history.shape for part in parts] == [(3, 2), (2, 64)]
    assert [part.history[row, width - 1] != UNKNOWN for part in parts for row, width in enumerate(part.widths)]


def test_what_training_sees_is_what_serving_sees(examples: Examples, data: Prepared, split: Split) -> None:
    """Histories, profiles and event features of the same events, by the two ways they come to the towers."""
    length = examples.schema.history_length
    one = draft(data.events, split.train[20:90], Shape(length, 6, False), none)
    for part, runs in zip(one.stretches, examples.batch(one).runs, strict=True):
        shared, alone = runs.queries(), examples.queries(part.events)
        assert torch.equal(shared.history, alone.history)
        assert shared.columns.keys() == alone.columns.keys()
        for name in ("country", "age", "stars", "hour"):
            torch.testing.assert_close(shared.columns[name], alone.columns[name])
        assert (alone.columns["example_age"] == 0).all()
        assert (shared.columns["example_age"] > 0).any()


@given(st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(-1, 6), max_size=12))
def test_pairs_are_all_that_are_equal(left: list[int], right: list[int]) -> None:
    wanted = [(i, j) for i in range(len(left)) for j in range(len(right)) if left[i] == right[j]]
    found = pairs(np.array(left, np.int64), np.array(right, np.int64))
    assert sorted(map(tuple, found.T.tolist())) == wanted
    assert (np.diff(found[0]) >= 0).all()


def test_hits_are_own_positives_and_those_of_the_same_user() -> None:
    log = log_of([4, 4])
    items = log.items.astype(np.int64)

    def in_batch(positives: Positives) -> Negatives:
        nothing = np.zeros(len(positives), np.float32)
        return Negatives(
            np.r_[positives.rows, items[6]], np.r_[nothing, nothing[:1]], nothing, np.r_[positives.users, UNKNOWN]
        )

    one = draft(log, np.array([1, 2, 3, 6]), Shape(4, 4, False), in_batch)
    assert one.events.tolist() == [1, 2, 3, 6]
    wanted = {(i, j) for i in range(3) for j in range(3)} | {(3, 3), (3, 4)}
    assert set(map(tuple, one.hits.T.tolist())) == wanted
    assert len(one.hits[0]) == len(wanted)
    assert np.array_equal(one.rows[one.positives], items[[1, 2, 3, 6]])
    assert np.array_equal(one.rows[one.negatives], items[[1, 2, 3, 6, 6]])


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_a_step(count: int) -> None:
    """All agree on the step; each has its part of the examples, and together they have all."""
    log = log_of([30, 7, 19, 2])
    order = epoch_order(log, np.arange(len(log)), Shape(8, 5, False), 0, np.random.default_rng(0))[:40]
    drafts: list[Draft] = [draft(log, order, Shape(8, 5, False), none, Processes(rank, count)) for rank in range(count)]
    for one in drafts:
        assert np.array_equal(one.events, drafts[0].events)
        assert np.array_equal(one.rows, drafts[0].rows)
    mine = [part.events for one in drafts for part in one.stretches]
    assert np.array_equal(np.concatenate(mine), drafts[0].events)


def test_what_is_made_ahead_comes_in_order_and_its_errors_come_too() -> None:
    def numbers() -> Iterator[int]:
        yield from range(50)
        raise ValueError("the fiftieth")

    found: list[int] = []
    with pytest.raises(ValueError, match="the fiftieth"):
        found.extend(ahead(numbers))
    assert found == list(range(50))
    stream = ahead(numbers)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "zhiyin-batches"]
