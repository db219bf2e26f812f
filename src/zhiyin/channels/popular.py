"""The popular channel: what most users chose, of late, or in one's own country."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zhiyin.channels.base import Found, Neighbourhoods, Seeker, unpublished
from zhiyin.channels.orders import completed
from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import DAY
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import DataError, SpecError
from zhiyin.release import Arrays, Release
from zhiyin.spec import nearest

KEPT = 2_000
"""Rows that each order keeps."""

MOST_SEGMENTS = 1_000
"""Values that a segment's column may have."""


@dataclass(frozen=True, slots=True)
class Popular:
    """The items with most events; the score is 1 / rank. `days`: only events of the log's last so many days count;
    `half_life` (days): an event that long before the log's end counts half. `segment`: a column of the user table; a
    user whose profile has one of its values gets the order of the users with that value, others get everyone's.

    With none of them it is the order that every release has. When too few that are ranked may come, what is popular of
    all time follows, and then the others by row.
    """

    days: float | None = None
    half_life: float | None = None
    segment: str = ""

    def __post_init__(self) -> None:
        for name in ("days", "half_life"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SpecError(f"{value}", where=f".{name}", expected="a number above 0")

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        """`rows` [1 + s, at most `KEPT`]: everyone's order, then each segment's, `UNKNOWN` after the last; `segments`
        [s] their values; `column`, whose values these are. Raises `DataError` for a window or a half-life on a log
        without clock times, and for a column that is not there or has too many values."""
        if not self._ranks:
            return {}
        events, weights = self._counted(data)
        values, belongs = _segments(data, self.segment) if self.segment else (np.empty(0, "U1"), None)
        kept = min(KEPT, len(data.items))
        orders = [_order(data.events, events, weights, kept)]
        if belongs is not None:
            own = belongs[data.events.users[events]]
            sort = np.argsort(own, kind="stable")
            ends = np.searchsorted(own[sort], np.arange(len(values) + 1))
            parts = (sort[start:stop] for start, stop in pairwise(ends))
            orders += [_order(data.events, events[part], weights[part], kept) for part in parts]
        return {"rows": np.stack(orders), "segments": values, "column": np.array([self.segment])}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        return True

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        if not self._ranks:
            return [completed(release, release.popular, seeker) for seeker in seekers]
        if not tables:
            raise unpublished(release)
        return [completed(release, _own(tables, seeker), seeker) for seeker in seekers]

    @property
    def _ranks(self) -> bool:
        """Whether it needs an order that not every release has."""
        return self.days is not None or self.half_life is not None or bool(self.segment)

    def _counted(self, data: Prepared) -> tuple[Events, NDArray[np.float64]]:
        """Which events count, and how much each."""
        log = data.events
        events = np.flatnonzero(log.items != UNKNOWN)
        if self.days is None and self.half_life is None:
            return events, np.ones(len(events))
        if not data.clock:
            raise DataError(
                "days need clock times",
                where="channel Popular",
                remedy="Leave `days` and `half_life` out, or set data.time_unit.",
            )
        ages = (log.times.max(initial=0) - log.times[events]) / DAY
        if self.days is not None:
            events, ages = events[ages < self.days], ages[ages < self.days]
        return events, np.ones(len(events)) if self.half_life is None else 0.5 ** (ages / self.half_life)


def _order(log: EventLog, events: Events, weights: NDArray[np.float64], kept: int) -> Rows:
    """[kept] the items of these events by weight, equal ones by row, `UNKNOWN` after the last."""
    rows, places = np.unique(log.items[events], return_inverse=True)
    counts = np.bincount(places, weights, minlength=len(rows))
    order = np.full(kept, UNKNOWN, np.int32)
    largest = rows[np.lexsort((rows, -counts))[:kept]]
    order[: len(largest)] = largest
    return order


def _segments(data: Prepared, column: str) -> tuple[NDArray[np.str_], Rows]:
    """The column's values as text, sorted, and which of them each user [users] has; `UNKNOWN` for none."""
    if column not in data.user_table:
        known = list(data.user_table)
        raise DataError(
            f"no column {column!r}{nearest(column, known)}",
            where="channel Popular segment",
            expected=f"one of {', '.join(known)}" if known else "",
            remedy="" if known else "The log has no user table: set data.users.",
        )
    texts = np.array([segment_of(value) for value in data.user_table[column].tolist()])
    values, numbers = np.unique(texts[texts != ""], return_inverse=True)
    if len(values) > MOST_SEGMENTS:
        raise DataError(
            f"{column!r} has {len(values):,} values", where="channel Popular segment", expected=f"≤ {MOST_SEGMENTS:,}"
        )
    belongs = np.full(len(texts), UNKNOWN, np.int32)
    belongs[texts != ""] = numbers
    return values, belongs


def segment_of(value: object) -> str:
    """A profile value as a segment's name; "" for what is missing or no plain value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | bool | int):
        return str(value)
    return str(value) if isinstance(value, float) and math.isfinite(value) else ""


def _own(tables: Arrays, seeker: Seeker) -> Rows:
    (column,) = tables["column"].tolist()
    value = segment_of(seeker.profile.get(column))
    place = np.flatnonzero(tables["segments"] == value).tolist() if value else []
    order = tables["rows"][1 + place[0] if place else 0]
    ranked: Rows = order[order != UNKNOWN]
    return ranked


EXAMPLES = (Popular(), Popular(days=2, segment="country"), Popular(half_life=7))
