"""Cards that were read a moment ago, kept in this process: what many requests show is fetched once.

They are kept as bytes: to decode the few fields that a request asks for takes less time than to pick them out of a card
that lies decoded, and bytes take less room (docs/decisions/0049)."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Packed = bytes | None
"""A card's bytes; None where none was put."""

Fetch = Callable[[list[str]], list[Packed]]
Clock = Callable[[], float]
Kept = dict[str, Packed]

_NOT_HERE: Any = object()


class HotCards:
    """At most about `size` cards, none older than `age` seconds; 0 cards: it keeps none.

    Two generations of half that age: the younger is filled, the older is dropped when the younger becomes it. So no
    card needs a time of its own, and nothing is moved when a card is read. What is fetched goes to the generation that
    was young before the fetch began, which may be gone by then, and nowhere if anything was forgotten meanwhile.
    """

    def __init__(self, size: int, age: float, clock: Clock = time.monotonic) -> None:
        self._size, self._half, self._clock = size, age / 2, clock
        self._lock = threading.Lock()
        self._version: object = None
        self._forgot = 0
        self._young: Kept = {}
        self._old: Kept = {}
        self._turns_at = clock() + self._half

    def cards(self, items: Sequence[str], fetch: Fetch, version: object = None) -> list[Packed]:
        """Each item's card, as bytes; those that are not here by one `fetch`. When `version` is another than the last
        time, all that is here is forgotten first."""
        if not self._size:
            return fetch(list(items))
        young, old, forgot = self._generations(version)
        found: Kept = {}
        missing = []
        for item in items:
            kept = young.get(item, _NOT_HERE)
            if kept is _NOT_HERE:
                kept = old.get(item, _NOT_HERE)
            if kept is _NOT_HERE:
                missing.append(item)
            else:
                found[item] = kept
        if missing:
            missing = list(dict.fromkeys(missing))
            fetched = dict(zip(missing, fetch(missing), strict=True))
            with self._lock:
                if forgot == self._forgot:
                    young |= fetched
            found |= fetched
        return [found[item] for item in items]

    def forget(self, items: Iterable[str]) -> None:
        """These are read anew from now on."""
        with self._lock:
            self._forgot += 1
            for item in items:
                self._young.pop(item, None)
                self._old.pop(item, None)

    def _generations(self, version: object) -> tuple[Kept, Kept, int]:
        with self._lock:
            now = self._clock()
            if version != self._version or now >= self._turns_at + self._half:
                self._young, self._old, self._version = {}, {}, version
                self._turns_at = now + self._half
            elif now >= self._turns_at:
                self._old, self._young = self._young, {}
                self._turns_at += self._half
            elif len(self._young) > self._size // 2:
                self._old, self._young = self._young, {}
                self._turns_at = now + self._half
            return self._young, self._old, self._forgot
