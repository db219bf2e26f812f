"""The event log: sorted, memory-mapped, one number an event.

An event's number is its identity; its history is the slice of the log before it. Nothing is written out per example,
so memory is O(events), never O(events × history length), and the future has no way in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Rows

Times = NDArray[np.int64]
"""Milliseconds since 1970, or plain positions where a log has no clock."""

Events = NDArray[np.int64]
"""Event numbers: positions in one sorted log."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """Events sorted by (user, time); equal times keep their order of arrival.

    `users`, `items` [E] rows; `times` [E]; `offsets` [users + 1]: user u's events are offsets[u] … offsets[u+1]-1;
    `columns`: what else is known of each event, in the same order.
    """

    users: Rows
    items: Rows
    times: Times
    offsets: NDArray[np.int64]
    columns: Table

    @classmethod
    def of(cls, users: Rows, items: Rows, times: Times, *, user_count: int, columns: Table | None = None) -> Self:
        """Sort events that arrive in any order. `user_count` is the number of user rows, with or without events."""
        order = np.lexsort((times, users))  # lexsort is stable: arrival breaks ties
        counts = np.bincount(users, minlength=user_count) if len(users) else np.zeros(user_count, np.int64)
        offsets = np.zeros(user_count + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        table = Table(columns.arrow.take(order)) if columns is not None else Table.of({}, len(users))
        return cls(
            users[order].astype(np.int32), items[order].astype(np.int32), times[order].astype(np.int64), offsets, table
        )

    def __len__(self) -> int:
        return len(self.items)

    def history(self, event: int) -> Rows:
        """[h] the items of this event's user before it, oldest first: a view."""
        return self.items[self.offsets[self.users[event]] : event]

    def histories(self, events: Events, length: int) -> Rows:
        """[n, length] the last `length` items before each event: newest last, `UNKNOWN` on the left."""
        places, real = self.windows(events, length)
        return np.where(real, self.items[places], np.int32(UNKNOWN))

    def windows(self, events: Events, length: int) -> tuple[Events, NDArray[np.bool_]]:
        """[n, length] the event numbers before each event, newest last, and which of them are this user's.

        Places that are not (the left padding) hold event 0, so that any column can be gathered and then masked.
        """
        places = np.asarray(events, np.int64)[:, None] + np.arange(-length, 0)
        real = places >= self.offsets[self.users[events]][:, None]
        return np.where(real, places, 0), real

    def moments(self, events: Events) -> Events:
        """[n] the first event of each one's user at its very time: what stands before that is earlier than it."""
        low, high = self.offsets[self.users[events]].astype(np.int64), np.asarray(events, np.int64)
        times = self.times[events]
        while (low < high).any():
            middle = (low + high) // 2
            earlier = (self.times[middle] < times) & (low < high)
            low, high = np.where(earlier, middle + 1, low), np.where(earlier, high, np.minimum(middle, high))
        return low

    def save(self, folder: Path) -> None:
        """Write `folder`, which must not exist."""
        folder.mkdir()
        for name in ("users", "items", "times", "offsets"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        self.columns.save(folder / "columns.arrow")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The log saved in `folder`, memory-mapped."""
        users, items, times, offsets = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("users", "items", "times", "offsets")
        )
        return cls(users, items, times, offsets, Table.open(folder / "columns.arrow"))
