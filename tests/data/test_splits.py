"""Both splitters against a plain one that knows only lists, and all that they refuse."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin import spec
from zhiyin.data.events import EventLog
from zhiyin.data.splits import DAY, HeldOut, LeaveLastOut, Marked, Split, Splitter, TimeCut
from zhiyin.data.tables import Table
from zhiyin.errors import DataError, SpecError

SPLITTERS: list[Splitter] = [one for one in spec.examples("zhiyin.data") if hasattr(one, "split")]

logs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=40)
"""(user, time)"""


def made(events: list[tuple[int, int]], unit: int = 1) -> EventLog:
    users, times = (np.array([event[i] for event in events], np.int64) for i in range(2))
    items = np.arange(len(events), dtype=np.int32)
    return EventLog.of(users.astype(np.int32), items, times * unit, user_count=5)


def targets(held: HeldOut) -> list[list[int]]:
    return [list(range(start, stop)) for start, stop in zip(held.starts, held.stops, strict=True)]


def check(log: EventLog, split: Split) -> None:
    """What holds for every split: parts that do not overlap, one user a query, nothing of its own future learned."""
    held = [event for part in (split.validation, split.test) for run in targets(part) for event in run]
    assert len(set(held)) == len(held)
    assert not set(held) & set(split.train.tolist())
    assert split.train.tolist() == sorted(set(split.train.tolist()))
    assert split.end == max(log.times[event] for event in split.train)
    for part in (split.validation, split.test):
        assert len(part) == len(part.starts) == len(part.stops)
        users = [log.users[start] for start in part.starts]
        assert len(set(users)) == len(users)
        for run in targets(part):
            assert run
            assert len({int(log.users[event]) for event in run}) == 1
            own = [event for event in split.train if log.users[event] == log.users[run[0]]]
            assert all(event < run[0] for event in own)


def split_or_none(splitter: Splitter, log: EventLog) -> Split | None:
    try:
        return splitter.split(log, True)
    except DataError:
        return None


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
@given(logs)
def test_every_splitter_keeps_the_parts_apart(splitter: Splitter, events: list[tuple[int, int]]) -> None:
    log = made(events)
    split = split_or_none(splitter, log)
    if split:
        check(log, split)
        assert split.words


@given(logs)
def test_leave_last_out_is_the_plain_one(events: list[tuple[int, int]]) -> None:
    log = made(events)
    runs = [list(range(log.offsets[user], log.offsets[user + 1])) for user in range(5)]
    long = [run for run in runs if len(run) >= 3]
    split = split_or_none(LeaveLastOut(), log)
    assert (split is None) == (not long)
    if split:
        assert targets(split.test) == [run[-1:] for run in long]
        assert targets(split.validation) == [run[-2:-1] for run in long]
        assert split.train.tolist() == [event for run in runs for event in (run[:-2] if len(run) >= 3 else run)]


def test_users_with_one_or_two_events_are_only_learned_from() -> None:
    log = made([(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3)])
    split = LeaveLastOut().split(log, True)
    assert split.train.tolist() == [0, 1, 2, 3]
    assert targets(split.test) == [[5]]


def test_leave_last_out_needs_no_clock() -> None:
    log = made([(0, 0), (0, 1), (0, 2)])
    assert LeaveLastOut().split(log, False).train.tolist() == [0]


@given(logs, st.floats(0.02, 0.6), st.floats(0.02, 0.6), st.sampled_from(["share", "days"]))
def test_a_time_cut_is_the_plain_one(events: list[tuple[int, int]], test: float, part: float, unit: str) -> None:
    if unit == "share" and test + part >= 1:
        return
    scale = 1 if unit == "share" else 20
    log = made(events, unit=DAY)
    split = split_or_none(TimeCut(test * scale, part * scale, unit), log)
    times = sorted(log.times.tolist())
    if not times:
        assert split is None
        return
    if unit == "share":
        last = times[min(int(len(times) * (1 - test)), len(times) - 1)]
        middle = times[int(len(times) * (1 - test - part))]
    else:
        last = times[-1] + 1 - round(test * scale * DAY)
        middle = last - round(part * scale * DAY)
    runs = [range(log.offsets[user], log.offsets[user + 1]) for user in range(5)]
    train = [event for event in range(len(log)) if log.times[event] < middle]
    validation = [r for run in runs if (r := [e for e in run if middle <= log.times[e] < last])]
    held = [r for run in runs if (r := [e for e in run if log.times[e] >= last])]
    assert (split is None) == (not train or not validation or not held)
    if split:
        assert split.train.tolist() == train
        assert targets(split.validation) == validation
        assert targets(split.test) == held


@given(logs)
def test_a_time_cut_never_learns_from_what_comes_later(events: list[tuple[int, int]]) -> None:
    log = made(events)
    split = split_or_none(TimeCut(0.2, 0.3), log)
    if split is None:
        return
    validation = log.times[[event for run in targets(split.validation) for event in run]]
    test = log.times[[event for run in targets(split.test) for event in run]]
    assert log.times[split.train].max() < validation.min()
    assert validation.max() < test.min()
    assert len(split.train) + len(validation) + len(test) == len(log), "every event is in one part"


def test_events_of_the_same_moment_are_never_parted() -> None:
    log = made([(0, 1), (1, 1), (0, 2), (1, 2), (2, 2), (3, 3), (0, 3)])
    split = TimeCut(0.2, 0.2).split(log, True)
    for time in (1, 2, 3):
        parts = [
            set(split.train.tolist()),
            {event for run in targets(split.validation) for event in run},
            {event for run in targets(split.test) for event in run},
        ]
        there = {event for event in range(len(log)) if log.times[event] == time}
        assert sum(bool(there & part) for part in parts) == 1


def test_shares_are_shares_of_the_events() -> None:
    log = made([(i % 5, i) for i in range(100)])
    split = TimeCut(0.1, 0.2).split(log, True)
    assert len(split.train) == 70
    assert sum(len(run) for run in targets(split.validation)) == 20
    assert sum(len(run) for run in targets(split.test)) == 10


def test_days_are_days_before_the_newest_event() -> None:
    log = made([(i % 5, i) for i in range(24 * 10)], unit=3_600_000)
    split = TimeCut(2, 1, "days").split(log, True)
    assert sum(len(run) for run in targets(split.test)) == 48
    assert sum(len(run) for run in targets(split.validation)) == 24


def test_the_words_say_what_was_done() -> None:
    log = made([(i % 5, i) for i in range(100)], unit=DAY)
    assert LeaveLastOut().split(log, True).words == (
        "leave-last-out: each user's last event is the test, the one before it validation; "
        "events of equal time keep their order of arrival"
    )
    assert TimeCut(0.1, 0.25).split(log, True).words == (
        "global time cut: the last 0.1 of all events are the test, the 0.25 before validation; "
        "a query is a user at the cut, all their later events of the window its targets"
    )
    assert "the last 7 days are the test, the 14 before validation" in TimeCut(7, 14, "days").split(log, True).words


LONG = [(user, time) for user in range(5) for time in range(4)]

REFUSED: list[tuple[Splitter, list[tuple[int, int]], bool, str]] = [
    (
        LeaveLastOut(),
        [(0, 1), (0, 2), (1, 1)],
        True,
        "split LeaveLastOut: no user has three events; expected a last event to test, one before it to validate, and "
        "one to learn from. Give a longer log, or use TimeCut.",
    ),
    (LeaveLastOut(), [], True, "split LeaveLastOut: no user has three events; "),
    (TimeCut(), [], True, "split TimeCut: the log has no events. Give a longer log."),
    (TimeCut(1, 1, "days"), [], True, "split TimeCut: the log has no events. Give a longer log."),
    (
        TimeCut(),
        LONG,
        False,
        "split TimeCut: this log has no clock times. Use LeaveLastOut, or set data.time_unit.",
    ),
    (
        TimeCut(100, 1, "days"),
        LONG,
        True,
        "split TimeCut: the cut leaves no training events. Change test or validation.",
    ),
    (TimeCut(0.5, 0.1), [(0, 1), (1, 1), (2, 1)], True, "split TimeCut: the cut leaves no training events. "),
    (TimeCut(0.1, 0.1), LONG, True, "split TimeCut: the cut leaves no validation events. "),
]


@pytest.mark.parametrize(("splitter", "events", "clock", "words"), REFUSED, ids=[str(r[0]) for r in REFUSED])
def test_what_cannot_be_split(splitter: Splitter, events: list[tuple[int, int]], clock: bool, words: str) -> None:
    with pytest.raises(DataError) as caught:
        splitter.split(made(events), clock)
    assert str(caught.value).startswith(words)


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"test": 0.0}, "test = 0.0, validation = 0.1; expected both above 0, and finite"),
    ({"validation": -0.1}, "test = 0.1, validation = -0.1; expected both above 0, and finite"),
    ({"test": float("nan")}, "test = nan, validation = 0.1; expected both above 0, and finite"),
    ({"test": float("inf"), "unit": "days"}, "test = inf, validation = 0.1; expected both above 0, and finite"),
    ({"test": 0.5, "validation": 0.5}, "test + validation = 1.0; expected less than 1"),
    ({"unit": "weeks"}, ".unit: 'weeks'; expected 'share' or 'days'"),
]


@pytest.mark.parametrize(("settings", "words"), SETTINGS, ids=str)
def test_settings_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        TimeCut(**settings)
    assert str(caught.value) == words


def marked(events: list[tuple[int, int]], parts: list[str]) -> EventLog:
    users, times = (np.array([event[i] for event in events], np.int64) for i in range(2))
    items = np.arange(len(events), dtype=np.int32)
    return EventLog.of(users.astype(np.int32), items, times, user_count=5, columns=Table.of({"part": parts}))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=5), st.floats(0.05, 0.95))
def test_marked_events_are_the_test_and_a_share_of_the_others_validation(
    counts: list[tuple[int, int]], share: float
) -> None:
    events = [(user, place) for user, (others, tests) in enumerate(counts) for place in range(others + tests)]
    parts = [part for others, tests in counts for part in ["learn"] * others + ["held"] * tests]
    try:
        split = Marked("part", "held", share).split(log := marked(events, parts), False)
    except DataError:
        enough = any(others > 1 and round(others * share) for others, _ in counts)
        assert not (enough and any(tests for _, tests in counts))
        return
    check(log, split)
    assert sorted(event for run in targets(split.test) for event in run) == [
        place for place, part in enumerate(parts) if part == "held"
    ]
    kept = [min(round(others * share), max(others - 1, 0)) for others, _ in counts]
    assert [len(run) for run in targets(split.validation)] == [count for count in kept if count]
    assert len(split.train) == sum(others for others, _ in counts) - sum(kept)


def test_what_marked_cannot_split() -> None:
    events = [(0, 0), (0, 1), (0, 2), (0, 3)]
    log = marked(events, ["learn", "learn", "held", "learn"])
    with pytest.raises(DataError, match="1 events of the test are followed by others of their user"):
        Marked("part", "held").split(log, False)
    with pytest.raises(DataError, match=r"no column 'prat' \(did you mean 'part'\?\).*data.columns = \[\"prat\"\]"):
        Marked("prat").split(log, False)
    with pytest.raises(DataError, match="no event's part is 'test'"):
        Marked("part").split(log, False)
    with pytest.raises(DataError, match="nothing is left to learn from"):
        Marked("part", "held", 0.1).split(marked(events, ["learn", "learn", "learn", "held"]), False)
    with pytest.raises(SpecError, match="1; expected a share between 0 and 1"):
        Marked(validation=1)
