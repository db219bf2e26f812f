"""A store that does not answer: requests go on without it, and it is asked again now and then."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from zhiyin.errors import StoreError

logger = logging.getLogger("zhiyin")

SLOW = 0.1
"""Seconds after which a failure is one that callers waited for."""

QUIET = 10.0
"""Seconds between two lines in the log."""

Read = TypeVar("Read")


class Outage:
    """Whether a store is asked. After it failed slowly it is not for `pause` seconds; then by one caller, and, when
    that one had its answer, by all: so a store that is silent costs one caller its timeout, and not every one. One
    that fails at once is asked every time: of a Cluster the other nodes may well answer."""

    def __init__(self, pause: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clock = pause, clock
        self._lock = threading.Lock()
        self._silent = self._asked = False
        self._again = self._told = -QUIET

    def ask(self, read: Callable[[], Read]) -> Read | None:
        """What the store says to `read`; None where it fails, or was silent a moment ago."""
        if not self._may_ask():
            return None
        silent, start = False, self._clock()
        try:
            return read()
        except StoreError as error:
            silent = self._clock() - start > SLOW
            self._tell(error)
            return None
        finally:
            self._end(silent=silent)

    def _may_ask(self) -> bool:
        if not self._silent:
            return True
        with self._lock:
            if self._asked or self._clock() < self._again:
                return False
            self._asked = True
            return True

    def _end(self, *, silent: bool) -> None:
        if silent or self._silent:
            with self._lock:
                self._silent, self._asked = silent, False
                self._again = self._clock() + self._pause

    def _tell(self, error: StoreError) -> None:
        with self._lock:
            now = self._clock()
            if now < self._told + QUIET:
                return
            self._told = now
        logger.warning("answers go on without the store: %s", error)
