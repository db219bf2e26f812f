"""The embedded store, on LMDB: one file, durable on return, readers never wait, many processes at once.

Four tables. A user's 16-byte digest leads every key, so any id will do, and one user's events lie together in order:

    events    digest(user) · time · arrival  →  identity digest, item, values, id
    known     digest(user) · digest(identity)  →  the event's key after the user
    profiles  digest(user)  →  profile
    cards     digest(item)  →  card
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from zhiyin.errors import SpecError, StoreError
from zhiyin.stores.base import Card, Event, Profile, UserState
from zhiyin.stores.records import check_cards, check_events, check_profiles, decode, digest, encode, identity

_BIAS = 1 << 63
_OPEN: dict[Path, tuple["lmdb.Environment", int]] = {}
_OPEN_LOCK = threading.Lock()
"""An LMDB file may be opened once in a process; who opens it again shares it."""


@dataclass(frozen=True, slots=True)
class LMDB:
    """`path`: the folder it lies in, made when it is not there. `keep`: the newest events that a user keeps.
    `map_gb`: the most it may grow to; address space, not disk."""

    path: Path = Path("store")
    keep: int = 1000
    map_gb: float = 64.0

    def __post_init__(self) -> None:
        if self.keep < 1 or self.map_gb <= 0:
            raise SpecError(f"keep = {self.keep}, map_gb = {self.map_gb}", expected="keep ≥ 1 and map_gb > 0")

    def open(self) -> "LMDBStore":
        return LMDBStore(self)


class LMDBStore:
    """An open LMDB environment."""

    def __init__(self, spec: LMDB) -> None:
        self._path, self._keep, self._map_gb = spec.path.absolute(), spec.keep, spec.map_gb
        self._env = _acquire(self._path, int(spec.map_gb * (1 << 30)))
        self._closed = False
        names = (b"events", b"known", b"profiles", b"cards")
        self._events, self._known, self._profiles, self._cards = (self._env.open_db(name) for name in names)

    def append(self, events: Sequence[Event]) -> int:
        check_events(events)
        if not events:
            return 0
        with self._transaction(write=True) as transaction:
            added = sum(self._append(transaction, event) for event in events)
            for user in dict.fromkeys(event.user for event in events):
                self._trim(transaction, digest(user))
        return added

    def read(self, users: Sequence[str], limit: int) -> list[UserState]:
        with self._transaction() as transaction:
            return [self._read(transaction, user, limit) for user in users]

    def put_profiles(self, profiles: Mapping[str, Profile]) -> None:
        check_profiles(profiles)
        with self._transaction(write=True) as transaction:
            for user, profile in profiles.items():
                transaction.put(digest(user), encode(profile), db=self._profiles)

    def cards(self, items: Sequence[str]) -> list[Card | None]:
        with self._transaction() as transaction:
            found = [transaction.get(digest(item), db=self._cards) for item in items]
            return [None if card is None else decode(card) for card in found]

    def put_cards(self, cards: Mapping[str, Card]) -> None:
        check_cards(cards)
        with self._transaction(write=True) as transaction:
            for item, card in cards.items():
                transaction.put(digest(item), encode(card), db=self._cards)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            _release(self._path)

    def _append(self, transaction: Any, event: Event) -> int:
        user, name = digest(event.user), digest(identity(event))
        if transaction.get(user + name, db=self._known) is not None:
            return 0
        moment = user + (event.time + _BIAS).to_bytes(8)
        place = moment + self._arrivals(transaction, moment).to_bytes(4)
        transaction.put(user + name, place[16:], db=self._known)
        record = (name, event.item, event.time, dict(event.values), event.id)
        transaction.put(place, encode(record), db=self._events)
        return 1

    def _arrivals(self, transaction: Any, moment: bytes) -> int:
        """How many events arrived at this moment of this user before."""
        cursor = transaction.cursor(db=self._events)
        there = cursor.set_range(moment + b"\xff" * 4)
        if there and cursor.key() == moment + b"\xff" * 4:
            raise StoreError("too many events of one user at one time", where=str(self._path))
        there = cursor.prev() if there else cursor.last()
        return int.from_bytes(cursor.key()[24:]) + 1 if there and cursor.key()[:24] == moment else 0

    def _trim(self, transaction: Any, user: bytes) -> None:
        """Drop what a user has beyond `keep`, the oldest first."""
        for place, record in list(self._backwards(transaction, user))[self._keep :]:
            transaction.delete(place, db=self._events)
            transaction.delete(user + decode(record)[0], db=self._known)

    def _read(self, transaction: Any, user: str, limit: int) -> UserState:
        key = digest(user)
        profile = transaction.get(key, db=self._profiles)
        events = []
        for _, record in self._backwards(transaction, key) if limit > 0 else ():
            _, item, time, values, id = decode(record)
            events.append(Event(user, item, time, values, id))
            if len(events) >= limit:
                break
        return UserState(None if profile is None else decode(profile), tuple(reversed(events)))

    def _backwards(self, transaction: Any, user: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and records of one user's events, newest first."""
        cursor = transaction.cursor(db=self._events)
        there = cursor.set_range(user + b"\xff" * 13)
        there = cursor.prev() if there else cursor.last()
        while there and cursor.key()[:16] == user:
            yield cursor.item()
            there = cursor.prev()

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Any]:
        if self._closed:
            raise StoreError("the store is closed", where=str(self._path))
        try:
            with self._env.begin(write=write) as transaction:
                yield transaction
        except lmdb.MapFullError:
            raise StoreError(
                f"full: {self._map_gb:g} GB",
                where=str(self._path),
                remedy="Raise store.map_gb; nothing of this write was kept.",
            ) from None
        except lmdb.Error as error:
            raise StoreError(f"LMDB: {error}", where=str(self._path)) from None


def _acquire(path: Path, size: int) -> "lmdb.Environment":
    with _OPEN_LOCK:
        if path in _OPEN:
            environment, users = _OPEN[path]
        else:
            try:
                path.mkdir(parents=True, exist_ok=True)
                environment, users = lmdb.open(str(path), map_size=size, max_dbs=4, max_readers=1024), 0
            except (OSError, lmdb.Error) as error:
                raise StoreError(
                    f"cannot be opened ({error})",
                    where=str(path),
                    remedy="Set [store] path to a folder you may write to.",
                ) from None
        _OPEN[path] = environment, users + 1
        return environment


def _release(path: Path) -> None:
    with _OPEN_LOCK:
        environment, users = _OPEN.pop(path)
        if users > 1:
            _OPEN[path] = environment, users - 1
        else:
            environment.close()


EXAMPLES = (LMDB(keep=20, map_gb=0.1),)
