"""The event log against a slow one that is a list of lists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data.events import EventLog
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN

Arrived = list[tuple[int, int, int]]
"""(user, item, time) in order of arrival."""

USERS = 5

logs = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, 9), st.integers(0, 4)), max_size=40)


def made(arrived: Arrived) -> EventLog:
    users, items, times = (np.array([event[i] for event in arrived], np.int64) for i in range(3))
    return EventLog.of(
        users.astype(np.int32),
        items.astype(np.int32),
        times,
        user_count=USERS,
        columns=Table.of({"arrival": list(range(len(arrived)))}) if arrived else None,
    )


@dataclass
class Slow:
    """Each user's events, in time, ties in order of arrival: (item, time, arrival)."""

    users: list[list[tuple[int, int, int]]]

    @classmethod
    def of(cls, arrived: Arrived) -> "Slow":
        users: list[list[tuple[int, int, int]]] = [[] for _ in range(USERS)]
        for arrival, (user, item, time) in enumerate(arrived):
            users[user].append((item, time, arrival))
        return cls([sorted(events, key=lambda event: (event[1], event[2])) for events in users])

    def histories(self) -> list[list[int]]:
        """The items before each event, events numbered through."""
        return [[item for item, _, _ in events[:i]] for events in self.users for i in range(len(events))]


@given(logs)
def test_events_are_sorted_by_user_and_time_and_ties_keep_their_arrival(arrived: Arrived) -> None:
    log, slow = made(arrived), Slow.of(arrived)
    flat = [(user, *event) for user, events in enumerate(slow.users) for event in events]
    assert len(log) == len(arrived)
    assert log.users.tolist() == [user for user, _, _, _ in flat]
    assert log.items.tolist() == [item for _, item, _, _ in flat]
    assert log.times.tolist() == [time for _, _, time, _ in flat]
    if arrived:
        assert log.columns["arrival"].tolist() == [arrival for _, _, _, arrival in flat]
    assert log.columns.length == len(arrived)
    counts = [len(events) for events in slow.users]
    assert log.offsets.tolist() == [0, *np.cumsum(counts).tolist()]
    assert [str(array.dtype) for array in (log.users, log.items, log.times)] == ["int32", "int32", "int64"]


@given(logs, st.integers(1, 7))
def test_histories_are_the_slow_ones(arrived: Arrived, length: int) -> None:
    log, expected = made(arrived), Slow.of(arrived).histories()
    histories = log.histories(np.arange(len(log)), length)
    assert histories.shape == (len(log), length)
    assert histories.dtype == np.int32
    for event in range(len(log)):
        assert log.history(event).tolist() == expected[event]
        padded = [UNKNOWN] * length + expected[event]
        assert histories[event].tolist() == padded[-length:]


@given(logs, st.integers(1, 7), st.data())
def test_events_may_be_asked_for_in_any_order_and_twice(arrived: Arrived, length: int, data: st.DataObject) -> None:
    log = made(arrived)
    chosen = data.draw(st.lists(st.integers(0, len(log) - 1), max_size=20)) if len(log) else []
    events = np.array(chosen, np.int64)
    everything = log.histories(np.arange(len(log)), length)
    np.testing.assert_array_equal(log.histories(events, length), everything[events])


@given(logs, st.integers(1, 7))
def test_windows_say_where_the_histories_stand(arrived: Arrived, length: int) -> None:
    log = made(arrived)
    events = np.arange(len(log))
    places, real = log.windows(events, length)
    assert places.shape == real.shape == (len(log), length)
    np.testing.assert_array_equal(real.sum(1), np.minimum(events - log.offsets[log.users], length))
    assert (places[~real] == 0).all()
    for event in events:
        own = places[event][real[event]]
        assert own.tolist() == list(range(event - len(own), event))
        assert (log.users[own] == log.users[event]).all()
        assert not real[event, : length - len(own)].any(), "the padding is on the left"


@given(logs, st.data())
def test_the_future_has_no_way_in(arrived: Arrived, data: st.DataObject) -> None:
    """Whatever happens at or after an event, and whatever others do, its history stays what it was."""
    log = made(arrived)
    if not len(log):
        return
    event = data.draw(st.integers(0, len(log) - 1))
    before = log.histories(np.array([event]), 6)
    changed = log.items.copy()
    start = log.offsets[log.users[event]]
    changed[event:] = 99
    changed[:start] = 99
    other = EventLog(log.users, changed, log.times, log.offsets, log.columns)
    np.testing.assert_array_equal(other.histories(np.array([event]), 6), before)
    np.testing.assert_array_equal(other.history(event), log.history(event))


def test_a_history_is_a_view_not_a_copy() -> None:
    log = made([(0, item, item) for item in range(5)])
    assert np.shares_memory(log.history(3), log.items)


def test_users_without_events_have_an_empty_run() -> None:
    log = made([(4, 1, 0), (1, 2, 0)])
    assert log.offsets.tolist() == [0, 0, 1, 1, 1, 2]


def test_equal_times_in_a_long_log_keep_their_arrival() -> None:
    items = np.arange(20_000, dtype=np.int32)
    users = (items % 3).astype(np.int32)
    log = EventLog.of(users, items, np.zeros(len(items), np.int64), user_count=3)
    for user in range(3):
        np.testing.assert_array_equal(log.items[log.offsets[user] : log.offsets[user + 1]], items[user::3])


@settings(max_examples=15)
@given(logs)
def test_a_saved_log_is_mapped_and_the_same(tmp_path_factory: pytest.TempPathFactory, arrived: Arrived) -> None:
    log = made(arrived)
    folder = tmp_path_factory.mktemp("log") / "events"
    log.save(folder)
    again = EventLog.open(folder)
    for name in ("users", "items", "times", "offsets"):
        assert isinstance(getattr(again, name), np.memmap)
        assert not getattr(again, name).flags.writeable
        np.testing.assert_array_equal(getattr(again, name), getattr(log, name))
        assert getattr(again, name).dtype == getattr(log, name).dtype
    assert again.columns.arrow.equals(log.columns.arrow)
    np.testing.assert_array_equal(again.histories(np.arange(len(log)), 3), log.histories(np.arange(len(log)), 3))
    if len(log) and len(again.history(len(log) - 1)):
        assert np.shares_memory(again.history(len(log) - 1), again.items), "nothing is read that is not looked at"


def test_a_log_is_not_written_over_another(tmp_path: Path) -> None:
    log = made([(0, 0, 0)])
    log.save(tmp_path / "events")
    with pytest.raises(FileExistsError):
        log.save(tmp_path / "events")
