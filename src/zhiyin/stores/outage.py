"""A store that does not answer: requests go on without it, and it is asked again now and then."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from zhiyin.errors import StoreError

logger = logging.getLogger("zhiyin")

Read = TypeVar("Read")


class Outage:
    """Whether a store is asked. After it failed it is not for `pause` seconds; then by one caller, and, when that one
    had its answer, by all. So a store that is silent costs one caller its timeout, and not every one."""

    def __init__(self, pause: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clock = pause, clock
        self._lock = threading.Lock()
        self._down = self._asked = False
        self._again = 0.0

    def ask(self, read: Callable[[], Read]) -> Read | None:
        """What the store says to `read`; None where it fails, or failed a moment ago."""
        if not self._may_ask():
            return None
        try:
            found = read()
        except StoreError as error:
            self._end(str(error))
            return None
        except BaseException:
            self._end("")
            raise
        self._end("")
        return found

    def _may_ask(self) -> bool:
        if not self._down:
            return True
        with self._lock:
            if self._asked or self._clock() < self._again:
                return False
            self._asked = True
            return True

    def _end(self, failed: str) -> None:
        if not failed and not self._down:
            return
        with self._lock:
            before, self._down, self._asked = self._down, bool(failed), False
            self._again = self._clock() + self._pause
        if failed and not before:
            logger.warning("answers go on without the store: %s", failed)
        elif before and not failed:
            logger.info("the store answers again")
