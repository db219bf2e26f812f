"""Where channels run side by side, and whatever else is not waited for without end: each has threads of its own, so
that one that hangs holds up no other."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

MOST = 32
"""Calls of one lane that may be under way at a time."""

Result = TypeVar("Result")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Busy(Exception):  # noqa: N818 – a state, and nobody's error
    """So many calls of a lane have not come back that it takes no more."""


class Lanes:
    """Threads by name, a channel's or another, started when they are needed and kept. They are daemons: one that hangs
    keeps no process from ending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}

    def start(self, name: str, work: Callable[[], Result]) -> "Future[Result]":
        """The work's result, some time. Raises `Busy`."""
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = _Lane(name)
            lane = self._lanes[name]
        return lane.start(work)


class _Lane:
    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads = self._under_way = 0

    def start(self, work: Callable[[], Result]) -> "Future[Result]":
        with self._lock:
            if self._under_way >= MOST:
                raise Busy
            self._under_way += 1
            grow = self._under_way > self._threads
            self._threads += grow
        future: Future[Result] = Future()
        self._jobs.put((work, future))
        if grow:
            threading.Thread(target=self._run, name=f"zhiyin-channel-{self._name}", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            work, future = self._jobs.get()
            try:
                found, error = work(), None
            except Exception as raised:
                found, error = None, raised
            with self._lock:
                self._under_way -= 1
            if error is None:
                future.set_result(found)
            else:
                future.set_exception(error)
