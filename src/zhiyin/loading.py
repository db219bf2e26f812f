"""A prepared log in a store: the items' cards, the users' profiles and newest events, a part at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Table
from zhiyin.stores.base import Event, ItemStore, UserStore

CHUNK = 10_000
"""Events, users or items that are loaded into a store at a time."""

Watch = Callable[[str, int, int], None]
"""Told what is being loaded, how many are done, and of how many."""


def unwatched(what: str, done: int, total: int) -> None:
    """Nobody is told."""


@dataclass
class Newer:
    """Items that were put after the moment `since` (milliseconds), and those that were deleted, whenever that was."""

    store: ItemStore
    since: float
    items: set[str] = field(default_factory=set)
    _number: int = 0

    def read_on(self) -> set[str]:
        """All of them by now."""
        while page := self.store.changes(self._number, CHUNK).changes:
            told = (one for one in page if one.blocked is None)  # a block leaves the card as it is
            self.items |= {one.item for one in told if one.values is None or one.time > self.since}
            self._number = page[-1].number
        return self.items


def cards(data: Prepared, store: ItemStore, changed: Newer | None = None, watch: Watch = unwatched) -> int:
    """The cards of all items but the `changed`; how many. What is changed meanwhile is read before each chunk."""
    total, loaded = len(data.items), 0
    for start in range(0, total, CHUNK):
        rows = range(start, min(start + CHUNK, total))
        newer = changed.read_on() if changed else ()
        told = zip(data.items.ids(rows), data.item_table.records(rows.start, rows.stop), strict=True)
        kept = {item: card for item, card in told if item not in newer}
        store.put_cards(kept)
        loaded += len(kept)
        watch("items", rows.stop, total)
    return loaded


def profiles(data: Prepared, store: UserStore, watch: Watch = unwatched) -> int:
    """The profiles of all users that have one; how many."""
    total, loaded = len(data.users), 0
    for start in range(0, total, CHUNK):
        rows = range(start, min(start + CHUNK, total))
        records = data.user_table.records(rows.start, rows.stop)
        told = {user: record for user, record in zip(data.users.ids(rows), records, strict=True) if record}
        store.put_profiles(told)
        loaded += len(told)
        watch("users", rows.stop, total)
    return loaded


def events(data: Prepared, store: UserStore, keep: int, watch: Watch = unwatched) -> int:
    """Each user's newest `keep` events; how many."""
    kept = np.minimum(np.diff(data.events.offsets), keep)
    total, loaded = int(kept.sum()), 0
    for numbers in _newest(data.events, kept):
        store.append(as_told(data, numbers))
        loaded += len(numbers)
        watch("events", loaded, total)
    return total


def _newest(log: EventLog, kept: NDArray[np.int64]) -> Iterator[Events]:
    """The newest `kept` [users] events of each user, for some whole users at a time: about `CHUNK` events."""
    before = np.r_[0, np.cumsum(kept)]
    first = 0
    while first < len(kept):
        stop = max(first + 1, int(np.searchsorted(before, before[first] + CHUNK, side="right")) - 1)
        ends = log.offsets[first + 1 : stop + 1]
        runs = [np.arange(end - count, end) for end, count in zip(ends, kept[first:stop], strict=True)]
        yield np.concatenate(runs)
        first = stop


def as_told(data: Prepared, numbers: Events) -> list[Event]:
    """These events of the log as the store takes them. An event that the log holds several times has an id for each
    further one, so that the store keeps them all, too."""
    log = data.events
    users, items = data.users.ids(log.users[numbers]), data.items.ids(log.items[numbers])
    values = Table(log.columns.arrow.take(numbers)).records(0, len(numbers))
    seen: dict[tuple[str, str, int], int] = {}
    found = []
    for user, item, time, told in zip(users, items, log.times[numbers].tolist(), values, strict=True):
        again = seen.get((user, item, time), 0)
        seen[user, item, time] = again + 1
        found.append(Event(user, item, time, told, f"{item}@{time}+{again}" if again else ""))
    return found
