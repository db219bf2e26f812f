"""The store in memory: real code, for tests, for trying things, and for one process that may forget."""

import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from zhiyin.errors import SpecError, StoreError
from zhiyin.stores.base import Card, Change, Event, Page, Profile, UserState
from zhiyin.stores.records import (
    change_key,
    checked_cards,
    checked_changes,
    checked_events,
    checked_profiles,
    identity,
    only,
)


@dataclass(frozen=True, slots=True)
class Memory:
    """`keep`: the newest events that a user keeps."""

    keep: int = 1000

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise SpecError(f"{self.keep}", where=".keep", expected="at least 1")

    def open(self) -> "MemoryStore":
        return MemoryStore(self.keep)


@dataclass(slots=True)
class _User:
    events: list[Event] = field(default_factory=list)
    known: set[str] = field(default_factory=set)


class MemoryStore:
    """Dictionaries behind one lock."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._users: dict[str, _User] = {}
        self._profiles: dict[str, Profile] = {}
        self._cards: dict[str, Card] = {}
        self._changes: dict[bytes, Change] = {}  # by number
        self._last = self._pruned = 0
        self._closed = False

    def append(self, events: Sequence[Event]) -> int:
        checked = checked_events(events)
        with self._open():
            return sum(self._append(event) for event in checked)

    def read(self, users: Sequence[str], limit: int) -> list[UserState]:
        with self._open():
            states = []
            for user in users:
                kept = self._users.get(user)
                events = tuple(kept.events[-limit:]) if kept is not None and limit > 0 else ()
                states.append(UserState(self._profiles.get(user), events))
            return states

    def put_profiles(self, profiles: Mapping[str, Profile]) -> None:
        checked = checked_profiles(profiles)
        with self._open():
            self._profiles |= checked

    def cards(self, items: Sequence[str], fields: Sequence[str] | None = None) -> list[Card | None]:
        with self._open():
            return [only(self._cards.get(item), fields) for item in items]

    def put_cards(self, cards: Mapping[str, Card]) -> None:
        checked = checked_cards(cards)
        with self._open():
            self._cards |= checked

    def drop_cards(self, items: Sequence[str]) -> None:
        with self._open():
            for item in items:
                self._cards.pop(item, None)

    def put_changes(self, changes: Sequence[Change]) -> None:
        checked = checked_changes(changes)
        with self._open():
            for change in checked:
                self._last += 1
                self._changes.pop(change_key(change), None)
                self._changes[change_key(change)] = replace(change, number=self._last)

    def changes(self, after: int, limit: int) -> Page:
        with self._open():
            newer: list[Change] = []
            for change in reversed(self._changes.values()):
                if change.number <= after:
                    break
                newer.append(change)
            return Page(tuple(newer[::-1][: max(limit, 0)]), self._pruned)

    def prune_changes(self, changes: Sequence[Change]) -> int:
        with self._open():
            told = {change_key(change): change.number for change in changes}
            gone = [key for key, number in told.items() if key in self._changes and self._changes[key].number == number]
            for key in gone:
                self._pruned = max(self._pruned, self._changes.pop(key).number)
            return len(gone)

    def close(self) -> None:
        self._closed = True

    def _append(self, event: Event) -> int:
        user = self._users.setdefault(event.user, _User())
        name = identity(event)
        if name in user.known:
            return 0
        place = bisect_right(user.events, event.time, key=lambda kept: kept.time)
        if place == 0 and len(user.events) >= self._keep:
            return 0
        user.known.add(name)
        user.events.insert(place, event)
        for dropped in user.events[: -self._keep]:
            user.known.discard(identity(dropped))
        del user.events[: -self._keep]
        return 1

    def _open(self) -> threading.Lock:
        if self._closed:
            raise StoreError("the store is closed", where="memory")
        return self._lock


EXAMPLES = (Memory(keep=20),)
