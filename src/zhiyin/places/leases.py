"""Who is at work, said by objects with a time: for storage that has no locks.

A lease says until when its writer is to be believed alive, and is renewed by a thread. A process that dies stops
renewing, and a minute later counts for nothing. Clocks must agree to within some seconds.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from zhiyin.errors import ReleaseError
from zhiyin.places.base import Hold, busy
from zhiyin.places.objects import Objects

logger = logging.getLogger("zhiyin")

LEASE = 60.0
"""Seconds that a lease is believed after its last renewal."""

LOCKS, IN_USE = ".locks", ".in-use"


@dataclass
class _Lease:
    """One object, renewed four times in its life for as long as `stop` is not set."""

    objects: Objects
    name: str
    token: str = field(default_factory=lambda: os.urandom(8).hex())
    stop: threading.Event = field(default_factory=threading.Event)
    process: int = field(default_factory=os.getpid)

    def content(self, until: float) -> bytes:
        who = f"process {os.getpid()} on {os.uname().nodename}"
        return json.dumps({"until": until, "token": self.token, "who": who}).encode()

    def renew(self) -> None:
        self.objects.write(self.name, self.content(time.time() + LEASE))

    def start(self, act: Callable[[], None]) -> None:
        threading.Thread(target=self._run, args=(act,), name="zhiyin-lease", daemon=True).start()

    def _run(self, act: Callable[[], None]) -> None:
        while not self.stop.wait(LEASE / 4):
            try:
                act()
            except ReleaseError as error:
                logger.warning("%s is not renewed: %s", self.name, error)


def use(objects: Objects, id: str) -> Hold:
    """Say that this process uses a release, until the answer goes. Who may not write there, or cannot just now, is
    warned, and goes on."""
    lease = _Lease(objects, f"{IN_USE}/{id}/{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        lease.renew()
    except ReleaseError as error:
        logger.warning("others cannot see that %s is in use here: %s", id, error)
    lease.start(lease.renew)
    return Hold(partial(_leave, lease))


def is_used(objects: Objects, id: str) -> bool:
    """Whether some process does, or did within the last minute and died."""
    names = objects.children(f"{IN_USE}/{id}")
    return any(_until(objects, f"{IN_USE}/{id}/{name}") > time.time() for name in names)


def forget_dead(objects: Objects) -> None:
    """Remove the leases of processes that died."""
    names = [f"{IN_USE}/{name}" for name in objects.sizes(IN_USE)]
    objects.delete([name for name in names if _until(objects, name) <= time.time()])


class LeaseLock:
    """A lock on an object store: the newest of numbered leases. An older number is never the lock again."""

    def __init__(self, objects: Objects, what: str) -> None:
        self._objects, self._what = objects, what
        numbers = _numbers(objects, what)
        last = numbers[-1] if numbers else 0
        found = _read(objects, _name(what, last)) if numbers else {}
        if found.get("until", 0) > time.time():
            raise busy(what, objects.url, str(found.get("who", "")))
        self._number = last + 1
        self._lease = _Lease(objects, _name(what, self._number))
        if not objects.create(self._lease.name, self._lease.content(time.time() + LEASE)):
            raise busy(what, objects.url, "it began in the same moment")
        self.check()
        objects.delete(_name(what, number) for number in numbers)  # never the newest
        self._lease.start(self._renew)

    def check(self) -> None:
        """Raises `ReleaseError` where another holds it by now."""
        newest = _numbers(self._objects, self._what)[-1:] == [self._number]
        if not newest or _read(self._objects, self._lease.name).get("token") != self._lease.token:
            self._lease.stop.set()
            raise busy(self._what, self._objects.url, "this one was taken for dead")

    def end(self) -> None:
        """Nothing is removed: the number must stay the newest."""
        self._lease.stop.set()
        with suppress(ReleaseError):
            self.check()
            self._objects.write(self._lease.name, self._lease.content(0))

    def _renew(self) -> None:
        self.check()
        self._lease.renew()


@contextmanager
def locked(objects: Objects, what: str, wait: float) -> Iterator[LeaseLock]:
    """One at a time may `what`. Raises `ReleaseError` where another still has the lock after `wait` seconds."""
    end = time.monotonic() + wait
    while True:
        try:
            lock = LeaseLock(objects, what)
            break
        except ReleaseError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.5)
    try:
        yield lock
    finally:
        lock.end()


def _leave(lease: _Lease) -> None:
    lease.stop.set()
    if lease.process == os.getpid():  # a fork's end is not its parent's
        with suppress(Exception):  # at the very end of a process little works; it is believed for a minute more
            lease.objects.delete([lease.name])


def _name(what: str, number: int) -> str:
    return f"{LOCKS}/{what}.{number:09d}"


def _numbers(objects: Objects, what: str) -> list[int]:
    return [int(name.rpartition(".")[2]) for name in objects.children(LOCKS) if name.startswith(f"{what}.")]


def _read(objects: Objects, name: str) -> dict[str, Any]:
    try:
        found = json.loads(objects.read(name) or b"{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _until(objects: Objects, name: str) -> float:
    return float(_read(objects, name).get("until", 0))
