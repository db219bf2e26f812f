"""Events through a Redis stream: an application writes them there, without HTTP, and consumers put them into the store.

The stream is the key PREFIX{key} of the store's Redis. An entry has a field `event`: JSON, as one of the events of
`POST /v1/events`. Where the event has no `event_id`, the entry's own id is its name; where it has no `time`, that of
the entry is its time: so an entry that is delivered twice is one event all the same.

Every entry is delivered to one consumer of the group, and acknowledged only once the store has kept its event: what a
consumer took and did not acknowledge is taken by another when it is `claim_after` seconds old. What no store can hold,
and what has a time that cannot be, goes to PREFIX{key}:refused with the reason, and holds nothing up.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

from zhiyin.errors import RequestError, SpecError, StoreError
from zhiyin.service import wire
from zhiyin.stores.base import Event, UserStore
from zhiyin.stores.redis import Redis, connected, explained

with suppress(ModuleNotFoundError):  # the store says how to get it
    from redis.exceptions import ResponseError

logger = logging.getLogger("zhiyin")

LONGEST_PAUSE = 10.0
"""Seconds between two tries while Redis or the store does not answer, at most."""

Fields = Mapping[bytes, bytes]
Entries = Mapping[str, Fields]


@dataclass(frozen=True, slots=True)
class Stream:
    """`key`: the stream's name after the store's prefix. `group`: whose consumers share its entries. `batch`: entries
    that are taken at a time. `claim_after`: seconds after which an entry that was taken and not acknowledged is taken
    again. `delete`: an entry goes once its event is kept; false where others read the stream too. `refused`: about how
    many of the newest refused entries stay."""

    key: str = "events"
    group: str = "zhiyin"
    batch: int = 500
    claim_after: float = 30.0
    delete: bool = True
    refused: int = 10_000

    def __post_init__(self) -> None:
        for name in ("key", "group"):
            word = getattr(self, name)
            if not word or not word.isprintable() or "{" in word or "}" in word:
                raise SpecError(f"{word!r}", where=f".{name}", expected="printable text without { and }")
        if self.batch < 1 or self.refused < 1 or not 0 < self.claim_after < 1e6:
            raise SpecError(
                f"batch = {self.batch}, refused = {self.refused}, claim_after = {self.claim_after}",
                expected="batch and refused ≥ 1, claim_after in seconds",
            )


@dataclass(slots=True)
class Counted:
    """What a consumer has done: events `kept`, those the store had (or let go as too old), and entries `refused`."""

    kept: int = 0
    known: int = 0
    refused: int = 0

    @property
    def words(self) -> str:
        return f"{self.kept:,} events kept, {self.known:,} known before, {self.refused:,} refused"


class Consumer:
    """One of a group. `clock`: milliseconds since 1970; `earliest`: the day (UTC) before which no event was. Raises
    `StoreError` where Redis does not answer."""

    def __init__(
        self,
        spec: Stream,
        redis: Redis,
        store: UserStore,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        earliest: date = wire.EARLIEST,
    ) -> None:
        self._spec, self._redis, self._store, self._clock, self._earliest = spec, redis, store, clock, earliest
        self.key = f"{redis.prefix}{{{spec.key}}}"
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.counted = Counted()
        self._wait = max(1, min(1000, int(500 * redis.timeout)))
        self._cursor, self._claims_at = "0-0", 0.0
        self._taken: Entries = {}
        self._ours_until = 0.0
        with explained(redis):
            self._client = connected(redis)
            self._make_group()

    def run(self, stop: threading.Event, *, once: bool = False) -> None:
        """Until it is told to stop; `once`: until no entry is left. While Redis or the store does not answer it tries
        again, after longer and longer pauses; `once` raises instead."""
        pause = 0.0
        while not stop.is_set():
            try:
                if not self.step(wait=not once) and once:
                    if not self._pending():
                        return
                    stop.wait(0.05)  # another has them
                pause = 0.0
            except StoreError as error:
                if once:
                    raise
                logger.warning("%s", error)
                pause = min(2 * pause or 0.1, LONGEST_PAUSE)
                stop.wait(pause)

    def step(self, *, wait: bool = True) -> int:
        """Take some entries and put their events into the store; how many it took. Where there are none it may `wait`
        for one, up to a second. Raises `StoreError`; what was taken is put again by the next call, unless it is
        anyone's by then."""
        if not self._taken or time.monotonic() > self._ours_until:
            self._ours_until = time.monotonic() + self._spec.claim_after
            with explained(self._redis):
                self._taken = self._stale() or self._new(self._wait if wait else None)
        entries = self._taken
        if entries:
            self._put(entries)
        self._taken = {}
        return len(entries)

    def close(self) -> None:
        """Leave the group; what was taken and not acknowledged is left to the others, under our name."""
        with suppress(StoreError), explained(self._redis):
            if not self._client.xpending_range(self.key, self._spec.group, "-", "+", 1, self.name):
                self._client.xgroup_delconsumer(self.key, self._spec.group, self.name)
        self._client.close()

    def _new(self, wait: int | None) -> Entries:
        spec = self._spec
        try:
            found = self._client.xreadgroup(spec.group, self.name, {self.key: ">"}, spec.batch, wait)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._make_group()  # somebody removed the stream
            return {}
        return _entries(found[0][1]) if found else {}

    def _stale(self) -> Entries:
        """What another consumer, or we before we were killed, took and did not acknowledge for too long."""
        if time.monotonic() < self._claims_at:
            return {}
        spec, idle = self._spec, round(1000 * self._spec.claim_after)
        try:
            cursor, found, *_ = self._client.xautoclaim(
                self.key, spec.group, self.name, idle, self._cursor, count=spec.batch
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._make_group()
            return {}
        self._cursor = cursor.decode()
        if self._cursor == "0-0":  # all were looked at
            self._claims_at = time.monotonic() + spec.claim_after / 4
        return _entries(found)

    def _put(self, entries: Entries) -> None:
        events: dict[str, Event] = {}
        refused: dict[str, str] = {}
        for id, fields in entries.items():
            try:
                events[id] = self._event(id, fields)
            except RequestError as error:
                refused[id] = str(error)
        new = self._append(events, refused)
        with explained(self._redis):
            self._refuse(entries, refused)
            self._acknowledge(list(entries))
        self.counted.kept += new
        self.counted.known += len(entries) - len(refused) - new
        self.counted.refused += len(refused)

    def _event(self, id: str, fields: Fields) -> Event:
        if b"event" not in fields:
            names = ", ".join(sorted(repr(name.decode(errors="replace")) for name in fields))
            raise RequestError(f"the entry has no field 'event', but {names}", expected="a field 'event' with JSON")
        told = wire.decode(fields[b"event"], wire.StoredEvent)
        if told.time is None:
            told.time = int(id.partition("-")[0]) / 1000
        told.event_id = told.event_id or f"{self._spec.key}/{id}"
        return wire.to_event(told, self._clock(), "event", self._earliest)

    def _append(self, events: Mapping[str, Event], refused: dict[str, str]) -> int:
        """How many were new; those that the store refuses are added to `refused`, and the others are kept."""
        try:
            return self._store.append(list(events.values()))
        except RequestError:
            new = 0
        for id, event in events.items():
            try:
                new += self._store.append([event])
            except RequestError as error:
                refused[id] = str(error).replace("events[0]", "event", 1)
        return new

    def _refuse(self, entries: Entries, refused: Mapping[str, str]) -> None:
        """Before they are acknowledged: an entry that is refused is never lost, though it may be there twice."""
        pipeline = self._client.pipeline(transaction=False)
        for id, reason in refused.items():
            told: dict[Any, Any] = {**entries[id], "entry": id, "reason": reason.encode(errors="replace")}
            pipeline.xadd(f"{self.key}:refused", told, maxlen=self._spec.refused)
            logger.warning("entry %s refused: %s", id, reason)
        pipeline.execute()

    def _acknowledge(self, ids: list[str]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xack(self.key, self._spec.group, *ids)
        if self._spec.delete:
            pipeline.xdel(self.key, *ids)
        pipeline.execute()

    def _pending(self) -> int:
        with explained(self._redis):
            return int(self._client.xpending(self.key, self._spec.group)["pending"])

    def _make_group(self) -> None:
        try:
            self._client.xgroup_create(self.key, self._spec.group, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _entries(found: list[tuple[bytes, Fields]]) -> Entries:
    return {id.decode(): fields for id, fields in found if fields is not None}
