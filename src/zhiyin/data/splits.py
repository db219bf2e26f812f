"""Which events are learned from and which are held out: arrays of event numbers, nothing copied."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.events import EventLog, Events
from zhiyin.errors import DataError, SpecError
from zhiyin.spec import nearest

DAY = 86_400_000
"""Milliseconds in a day."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """[n] queries: query i stands just before event starts[i]; the events starts[i] … stops[i]-1 are its targets.

    Its history is everything its user did before starts[i]; its targets are that user's, one run of the log.
    """

    starts: Events
    stops: Events

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class Split:
    """`train` [n] event numbers that are learned from, ascending; two held-out sets; `words` states it for a report.

    `end` is the time at which training ends (the time of the newest training event).
    """

    train: Events
    validation: HeldOut
    test: HeldOut
    end: int
    words: str


class Splitter(Protocol):
    """A spec that splits a log."""

    def split(self, log: EventLog, clock: bool) -> Split: ...


@dataclass(frozen=True, slots=True)
class LeaveLastOut:
    """Each user's last event is the test, the one before it validation, the rest is learned from.

    A user needs three events to be held out; the events of one with fewer are all learned from.
    """

    def split(self, log: EventLog, clock: bool) -> Split:
        """Raises `DataError` when no user has three events."""
        ends, counts = log.offsets[1:], np.diff(log.offsets)
        last = ends[counts >= 3] - 1
        if not len(last):
            raise DataError(
                "no user has three events",
                where="split LeaveLastOut",
                expected="a last event to test, one before it to validate, and one to learn from",
                remedy="Give a longer log, or use TimeCut.",
            )
        kept = np.ones(len(log), bool)
        kept[last] = kept[last - 1] = False
        train = np.flatnonzero(kept)
        return Split(
            train,
            validation=HeldOut(last - 1, last),
            test=HeldOut(last, last + 1),
            end=int(log.times[train].max()),
            words="leave-last-out: each user's last event is the test, the one before it validation; "
            "events of equal time keep their order of arrival",
        )


@dataclass(frozen=True, slots=True)
class TimeCut:
    """A global cut: what happens in the last `test` of the time is the test, the `validation` before it validation.

    `test` and `validation` are days when `unit = "days"`, or shares of all events by time when `unit = "share"`.
    A query is a user at the cut, with all their later events of that window as targets.
    """

    test: float = 0.1
    validation: float = 0.1
    unit: str = "share"

    def __post_init__(self) -> None:
        if self.unit not in ("share", "days"):
            raise SpecError(f"{self.unit!r}", where=".unit", expected="'share' or 'days'")
        if not (0 < self.test < math.inf and 0 < self.validation < math.inf):
            raise SpecError(f"test = {self.test}, validation = {self.validation}", expected="both above 0, and finite")
        if self.unit == "share" and self.test + self.validation >= 1:
            raise SpecError(f"test + validation = {self.test + self.validation}", expected="less than 1")

    def split(self, log: EventLog, clock: bool) -> Split:
        """Raises `DataError` for a log without a clock, or when a cut leaves nothing on one side."""
        if not clock:
            raise DataError(
                "this log has no clock times", where="split TimeCut", remedy="Use LeaveLastOut, or set data.time_unit."
            )
        if not len(log):
            raise DataError("the log has no events", where="split TimeCut", remedy="Give a longer log.")
        if self.unit == "days":
            end = int(log.times.max()) + 1
            test_cut = end - round(self.test * DAY)
            validation_cut = test_cut - round(self.validation * DAY)
        else:
            ranked = np.sort(log.times)
            test_cut = int(ranked[min(int(len(ranked) * (1 - self.test)), len(ranked) - 1)])
            validation_cut = int(ranked[int(len(ranked) * (1 - self.test - self.validation))])
        train = np.flatnonzero(log.times < validation_cut)
        validation = _window(log, validation_cut, test_cut)
        test = _window(log, test_cut, None)
        for name, part in (("training", train), ("validation", validation), ("test", test)):
            if not len(part):
                raise DataError(
                    f"the cut leaves no {name} events", where="split TimeCut", remedy="Change test or validation."
                )
        unit = "days" if self.unit == "days" else "of all events"
        return Split(
            train,
            validation,
            test,
            end=int(log.times[train].max()),
            words=f"global time cut: the last {self.test:g} {unit} are the test, the {self.validation:g} before "
            "validation; a query is a user at the cut, all their later events of the window its targets",
        )


@dataclass(frozen=True, slots=True)
class Marked:
    """A split that the data come with: the events whose `column` says `test`, the last of their users', are the test.

    Of each user's other events the last `validation` (a share, rounded) are validation; one of a user is learned from
    at the least. Where those events stand in a drawn order, so is validation.
    """

    column: str = "split"
    test: str = "test"
    validation: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise SpecError(f"{self.validation}", where=".validation", expected="a share between 0 and 1")

    def split(self, log: EventLog, clock: bool) -> Split:
        """Raises `DataError` for a log without the column or without test events, for others of a user after them, and
        when nothing is left to learn from or to validate."""
        tested = np.bincount(log.users[self._marked(log)], minlength=len(log.offsets) - 1)
        starts, stops = log.offsets[:-1], log.offsets[1:]
        cuts = stops - tested
        others = cuts - starts
        held = np.clip(np.round(others * self.validation).astype(np.int64), 0, np.maximum(others - 1, 0))
        train = np.flatnonzero(np.arange(len(log)) < (cuts - held)[log.users])
        if not (len(train) and held.any()):
            raise DataError(
                "nothing is left to learn from, or to validate",
                where="split Marked",
                expected="users with several events that are not of the test",
                remedy="Raise validation, or give a longer log.",
            )
        return Split(
            train,
            HeldOut((cuts - held)[held > 0], cuts[held > 0]),
            HeldOut(cuts[tested > 0], stops[tested > 0]),
            end=int(log.times[train].max()),
            words=f"the split that the data come with: events whose {self.column} is {self.test} are the test, all of "
            f"a user's are targets of one query; {self.validation:g} of each user's other events are validation",
        )

    def _marked(self, log: EventLog) -> NDArray[np.bool_]:
        """[E] whether an event is of the test."""
        if self.column not in log.columns:
            raise DataError(
                f"the log has no column '{self.column}'{nearest(self.column, log.columns)}",
                where="split Marked",
                remedy=f'Keep it: data.columns = ["{self.column}"].',
            )
        marked = np.asarray(log.columns[self.column] == self.test)
        if not marked.any():
            raise DataError(f"no event's {self.column} is '{self.test}'", where="split Marked")
        places = np.flatnonzero(marked[:-1] & ~marked[1:])
        wrong = places[log.users[places] == log.users[places + 1]]
        if len(wrong):
            raise DataError(
                f"{len(wrong):,} events of the test are followed by others of their user",
                where="split Marked",
                expected="each user's test events to be the last",
            )
        return marked


def _window(log: EventLog, start: int, stop: int | None) -> HeldOut:
    inside = log.times >= start
    if stop is not None:
        inside &= log.times < stop
    events = np.flatnonzero(inside)
    if not len(events):
        return HeldOut(events, events)
    users = log.users[events]
    first = np.r_[True, users[1:] != users[:-1]]
    starts = events[first]
    counts = np.diff(np.r_[np.flatnonzero(first), len(events)])
    return HeldOut(starts, starts + counts)


EXAMPLES = (LeaveLastOut(), TimeCut(), Marked())
