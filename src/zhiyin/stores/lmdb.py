"""The embedded store, on LMDB: one file, durable on return, readers never wait, many processes at once.

Seven tables. A user's 16-byte digest leads every key, so any id will do, and one user's events lie together in order:

    events    digest(user) · time · arrival  →  identity digest, item, time, values, id
    known     digest(user) · digest(identity)  →  nothing: such an event is kept
    sizes     digest(user)  →  how many events are kept; "cards" → how often cards were put or dropped; "pruned" → the
              highest number of a change that was pruned
    profiles  digest(user)  →  profile
    cards     digest(item)  →  card
    changes   number  →  item, time, and the values of a change, or whether the item is blocked
    latest    digest(item)  →  the number of its last put or deletion, the one that is kept; digest(item, "blocked")  →
              the number of its last block or unblock
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from zhiyin.errors import SpecError, StoreError
from zhiyin.stores.base import Card, Change, Event, Page, Profile, UserState
from zhiyin.stores.hot import HotCards
from zhiyin.stores.records import (
    change_key,
    checked_cards,
    checked_changes,
    checked_events,
    checked_profiles,
    decode,
    decode_cards,
    digest,
    encode,
    identity,
    packed_change,
    unpacked_change,
)

_BIAS = 1 << 63
_PUTS, _PRUNED = b"cards", b"pruned"
_TABLES = (b"events", b"known", b"sizes", b"profiles", b"cards", b"changes", b"latest")


@dataclass(frozen=True, slots=True)
class LMDB:
    """`path`: the folder it lies in, made when it is not there. `keep`: the newest events that a user keeps.
    `map_gb`: the most it may grow to; address space, not disk. `card_cache`: cards that stay in this process
    until any process puts cards."""

    path: Path = Path("store")
    keep: int = 1000
    map_gb: float = 64.0
    card_cache: int = 50_000

    def __post_init__(self) -> None:
        if self.keep < 1 or self.map_gb <= 0 or self.card_cache < 0:
            raise SpecError(
                f"keep = {self.keep}, map_gb = {self.map_gb}, card_cache = {self.card_cache}",
                expected="keep ≥ 1, map_gb > 0 and card_cache ≥ 0",
            )

    def open(self) -> "LMDBStore":
        return LMDBStore(self)


@dataclass(slots=True)
class _Shared:
    """One open file of this process, and how many stores use it: LMDB allows a process to open a file but once."""

    environment: "lmdb.Environment"
    tables: tuple[Any, ...]
    stores: int = 0


_OPEN: dict[Path, _Shared] = {}
_OPEN_LOCK = threading.Lock()


class LMDBStore:
    """An open LMDB environment."""

    def __init__(self, spec: LMDB) -> None:
        self._path, self._keep = spec.path.resolve(), spec.keep
        shared = _acquire(self._path, int(spec.map_gb * (1 << 30)))
        self._environment = shared.environment
        self._events, self._known, self._sizes, self._profiles, self._cards, self._changes, self._latest = shared.tables
        self._hot = HotCards(spec.card_cache, math.inf)
        self._idle = threading.Condition()
        self._transactions = 0
        self._closed = False

    def append(self, events: Sequence[Event]) -> int:
        checked = checked_events(events)
        if not checked:
            return 0
        with self._transaction(write=True) as transaction:
            return sum(self._append(transaction, event) for event in checked)

    def read(self, users: Sequence[str], limit: int) -> list[UserState]:
        with self._transaction() as transaction:
            return [self._read(transaction, user, limit) for user in users]

    def put_profiles(self, profiles: Mapping[str, Profile]) -> None:
        checked = checked_profiles(profiles)
        with self._transaction(write=True) as transaction:
            for user, profile in checked.items():
                transaction.put(digest(user), encode(profile), db=self._profiles)

    def cards(self, items: Sequence[str], fields: Sequence[str] | None = None) -> list[Card | None]:
        with self._transaction() as transaction:

            def fetch(missing: list[str]) -> list[bytes | None]:
                return [transaction.get(digest(item), db=self._cards) for item in missing]

            packed = self._hot.cards(items, fetch, transaction.get(_PUTS, db=self._sizes))
        return decode_cards(packed, fields)

    def put_cards(self, cards: Mapping[str, Card]) -> None:
        checked = checked_cards(cards)
        with self._transaction(write=True) as transaction:
            for item, card in checked.items():
                transaction.put(digest(item), encode(card), db=self._cards)
            self._count_put(transaction)

    def drop_cards(self, items: Sequence[str]) -> None:
        with self._transaction(write=True) as transaction:
            for item in items:
                transaction.delete(digest(item), db=self._cards)
            self._count_put(transaction)

    def put_changes(self, changes: Sequence[Change]) -> None:
        checked = checked_changes(changes)
        with self._transaction(write=True) as transaction:
            cursor = transaction.cursor(db=self._changes)
            last = max(int.from_bytes(cursor.key()) if cursor.last() else 0, self._pruned(transaction))
            for number, change in enumerate(checked, last + 1):
                key = change_key(change)
                before = transaction.get(key, db=self._latest)
                transaction.put(number.to_bytes(8), packed_change(change), db=self._changes)
                transaction.put(key, number.to_bytes(8), db=self._latest)
                if before is not None:
                    transaction.delete(before, db=self._changes)

    def changes(self, after: int, limit: int) -> Page:
        found: list[Change] = []
        with self._transaction() as transaction:
            cursor = transaction.cursor(db=self._changes)
            there = cursor.set_range((after + 1).to_bytes(8))
            while there and len(found) < limit:
                found.append(unpacked_change(cursor.value(), int.from_bytes(cursor.key())))
                there = cursor.next()
            return Page(tuple(found), self._pruned(transaction))

    def prune_changes(self, changes: Sequence[Change]) -> int:
        with self._transaction(write=True) as transaction:
            gone = [change for change in changes if self._forget(transaction, change)]
            pruned = max([self._pruned(transaction), *(change.number for change in gone)])
            transaction.put(_PRUNED, pruned.to_bytes(8), db=self._sizes)
        return len(gone)

    def close(self) -> None:
        """Waits for reads and writes under way."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: not self._transactions)
        _release(self._path)

    def _pruned(self, transaction: Any) -> int:
        return int.from_bytes(transaction.get(_PRUNED, b"", db=self._sizes))

    def _forget(self, transaction: Any, change: Change) -> bool:
        """Whether the change was there, as the last of its item."""
        key, number = change_key(change), change.number.to_bytes(8)
        if transaction.get(key, db=self._latest) != number:
            return False
        transaction.delete(key, db=self._latest)
        return bool(transaction.delete(number, db=self._changes))

    def _count_put(self, transaction: Any) -> None:
        puts = int.from_bytes(transaction.get(_PUTS, b"", db=self._sizes)) + 1
        transaction.put(_PUTS, puts.to_bytes(8), db=self._sizes)

    def _append(self, transaction: Any, event: Event) -> int:
        user, name = digest(event.user), digest(identity(event))
        if transaction.get(user + name, db=self._known) is not None:
            return 0
        size = int.from_bytes(transaction.get(user, b"", db=self._sizes))
        moment = user + (event.time + _BIAS).to_bytes(8)
        oldest = self._oldest(transaction, user)
        if size >= self._keep and moment < oldest[:24]:
            return 0
        place = moment + self._arrivals(transaction, moment).to_bytes(4)
        transaction.put(user + name, b"", db=self._known)
        transaction.put(place, encode((name, event.item, event.time, event.values, event.id)), db=self._events)
        for _ in range(size + 1 - self._keep):
            self._drop_oldest(transaction, user)
        transaction.put(user, min(size + 1, self._keep).to_bytes(4), db=self._sizes)
        return 1

    def _arrivals(self, transaction: Any, moment: bytes) -> int:
        """How many events arrived at this moment of this user before."""
        cursor = transaction.cursor(db=self._events)
        there = cursor.set_range(moment + b"\xff" * 4)
        if there and cursor.key() == moment + b"\xff" * 4:
            raise StoreError("too many events of one user at one time", where=str(self._path))
        there = cursor.prev() if there else cursor.last()
        return int.from_bytes(cursor.key()[24:]) + 1 if there and cursor.key()[:24] == moment else 0

    def _oldest(self, transaction: Any, user: bytes) -> bytes:
        """The key of a user's oldest event; another's, or empty, where the user has none."""
        cursor = transaction.cursor(db=self._events)
        cursor.set_range(user)
        key: bytes = cursor.key()
        return key

    def _drop_oldest(self, transaction: Any, user: bytes) -> None:
        place = self._oldest(transaction, user)
        record = decode(transaction.pop(place, db=self._events))
        transaction.delete(user + record[0], db=self._known)

    def _read(self, transaction: Any, user: str, limit: int) -> UserState:
        key = digest(user)
        profile = transaction.get(key, db=self._profiles)
        events: list[Event] = []
        cursor = transaction.cursor(db=self._events)
        there = cursor.set_range(key + b"\xff" * 13)
        there = cursor.prev() if there else cursor.last()
        while there and len(events) < min(limit, self._keep) and cursor.key()[:16] == key:
            _, item, time, values, id = decode(cursor.value())
            events.append(Event(user, item, time, values, id))
            there = cursor.prev()
        return UserState(None if profile is None else decode(profile), tuple(reversed(events)))

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Any]:
        with self._idle:
            if self._closed:
                raise StoreError("the store is closed", where=str(self._path))
            self._transactions += 1
        try:
            with self._environment.begin(write=write) as transaction:
                yield transaction
        except lmdb.MapFullError:
            raise StoreError(
                f"full: {self._environment.info()['map_size'] / (1 << 30):g} GB",
                where=str(self._path),
                remedy="Raise store.map_gb; nothing of this write was kept.",
            ) from None
        except lmdb.Error as error:
            raise StoreError(
                f"LMDB: {error}",
                where=str(self._path),
                remedy="Look at the disk and its space; nothing of this write was kept." if write else "",
            ) from None
        finally:
            with self._idle:
                self._transactions -= 1
                self._idle.notify_all()


def _acquire(path: Path, size: int) -> _Shared:
    with _OPEN_LOCK:
        if path not in _OPEN:
            _OPEN[path] = _opened(path, size)
        _OPEN[path].stores += 1
        return _OPEN[path]


def _opened(path: Path, size: int) -> _Shared:
    environment = None
    try:
        path.mkdir(parents=True, exist_ok=True)
        environment = lmdb.open(str(path), map_size=size, max_dbs=len(_TABLES), max_readers=1024)
        environment.reader_check()  # a reader that was killed would hold back the pages it saw for ever
        return _Shared(environment, tuple(environment.open_db(name) for name in _TABLES))
    except (OSError, lmdb.Error) as error:
        if environment is not None:
            environment.close()
        raise StoreError(
            f"cannot be opened ({error})",
            where=str(path),
            remedy="Set [store] path to a folder you may write to, on a disk with space, and map_gb to what it needs.",
        ) from None


def _release(path: Path) -> None:
    with _OPEN_LOCK:
        shared = _OPEN[path]
        shared.stores -= 1
        if not shared.stores:
            del _OPEN[path]
            shared.environment.close()


EXAMPLES = (LMDB(keep=20, map_gb=0.1),)
