"""The one mutable cell of the online path: which release is live, with what became of its items since."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from zhiyin.errors import ReleaseError, StoreError
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service.overlay import Overlay
from zhiyin.stores.base import Card, Change, ItemStore

logger = logging.getLogger("zhiyin")

LONGEST_WAIT = 64
"""Looks that a release which could not be opened is left alone at most: opening one reads every byte of it."""

PAGE = 1000
"""Changes of items that are read at once."""


class Live:
    """Holds the live release, and follows when another becomes it, and what becomes of items in a store.

    A request takes one reference, so it never pairs one release's tower with another's index, and sees an item
    everywhere or nowhere. A new release that cannot be opened leaves the old one live; `trouble` says why. One is
    opened aside, with all that became of items since, before it takes the place of the other. While the store does not
    answer, what was known of it stays; `store_trouble` says why.
    """

    def __init__(
        self, releases: Releases, store: ItemStore | None = None, *, interval: float = 0.5, follow_interval: float = 0.2
    ) -> None:
        """Opens the live release, where there is one. `store`: whose items to follow; None: nobody's. `interval`:
        seconds between two looks at which release is live; `follow_interval`: at the store."""
        self._releases, self._store = releases, store
        self._intervals = {self.look: interval, **({} if store is None else {self.follow: follow_interval})}
        self._release: Release | None = None
        self._overlay: Overlay | None = None
        self._shown = -1  # the number of the last change that `release` shows
        self._turn = threading.Lock()
        self._refused = ""
        self._wait = self._waited = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.trouble = self.store_trouble = ""
        self.look()

    @property
    def held(self) -> Release | None:
        """The live release, where there is one."""
        return self._release

    @property
    def release(self) -> Release:
        """The live release. Raises `ReleaseError` while there is none."""
        release = self._release
        if release is None:
            raise ReleaseError(
                f"no release is live ({self.trouble})" if self.trouble else "no release is live",
                where=str(self._releases.root),
                remedy="Run `zhiyin publish recipe.toml`; the service follows.",
            )
        return release

    def look(self) -> None:
        """Swap, when another release has become the live one. One that cannot be opened is tried again after 1, 2, 4 …
        more looks."""
        wanted = ""
        try:
            wanted = self._releases.current()
            if self._release is not None and wanted == self._release.id:
                self._refused = self.trouble = ""
            elif not self._is_left_alone(wanted):
                self._adopt(self._releases.open(wanted))
                self._refused = self.trouble = ""
                logger.info("release %s is live", wanted)
        except Exception as error:  # whatever it is, the release that is live stays live, and is followed on
            said = str(error) or type(error).__name__
            if said != self.trouble:
                logger.warning("%s", said)
            self.trouble = said
            self._leave_alone(wanted)

    def follow(self) -> None:
        """Take over what became of items since the last time."""
        try:
            with self._turn:
                self._catch_up()
            self.store_trouble = ""
        except Exception as error:  # whatever it is, what is live stays live, and the store is followed on
            said = str(error) or type(error).__name__
            if said != self.store_trouble:
                logger.warning("items are not followed: %s", said)
            self.store_trouble = said

    def put(self, changes: Sequence[Change], cards: Mapping[str, Card]) -> list[bool]:
        """Keep items, and show them here. Returns for each whether it was there before. Raises `StoreError`, and
        `ReleaseError` while no release is live."""
        items = [change.item for change in changes]
        with self._turn:
            store, release = self._followed(), self.release
            there = (release.finds(items) | release.blocks(items)).tolist()
            store.put_cards(cards)
            store.put_changes(changes)
            self._catch_up()
        return list(there)

    def delete(self, item: str, time: int) -> bool:
        """Take an item away, for good or until it is put again; whether it could be found before. Raises like `put`."""
        with self._turn:
            store, there = self._followed(), bool(self.release.finds([item])[0])
            store.put_changes([Change(item, time, None)])
            self._catch_up()
            store.drop_cards([item])
        return there

    def block(self, item: str, time: int, *, blocked: bool) -> bool:
        """Keep an item from being found, whatever is put or deleted, until it is unblocked; whether it is there. Raises
        like `put`."""
        with self._turn:
            store, _ = self._followed(), self.release
            store.put_changes([Change(item, time, None, blocked=blocked)])
            self._catch_up()
            release = self.release
        return bool((release.finds([item]) | release.blocks([item]))[0])

    def _followed(self) -> ItemStore:
        if self._store is None:
            raise StoreError("this service follows no store", remedy="Give its `Live` the store.")
        return self._store

    def _adopt(self, release: Release) -> None:
        """Swap to another release, with all that became of its items since."""
        overlay = self._read_on(Overlay(release))  # the most of it, while requests and writes go on
        with self._turn:
            overlay = self._read_on(overlay)
            self._show(overlay)

    def _catch_up(self) -> None:
        overlay = self._overlay
        if overlay is None:
            return
        now = self._read_on(overlay)
        if now is not overlay or now.number != self._shown or now.stale:
            self._show(now)

    def _show(self, overlay: Overlay) -> None:
        self._overlay, self._release, self._shown = overlay, overlay.view(), overlay.number

    def _read_on(self, overlay: Overlay) -> Overlay:
        """The overlay with what the store has after the last change that was applied to it. Where some of that may have
        been pruned: another one, of the same release, with all that the store has."""
        while self._store is not None:
            page = self._store.changes(overlay.number, PAGE)
            if page.pruned > max(overlay.number, overlay.pruned):
                overlay = Overlay(overlay.base, pruned=page.pruned)
            elif page.changes:
                overlay.apply(page.changes)
            else:
                break
        return overlay

    def _is_left_alone(self, id: str) -> bool:
        if id != self._refused:
            self._wait = 0
            return False
        self._waited += 1
        return self._waited <= self._wait

    def _leave_alone(self, id: str) -> None:
        self._wait = min(2 * self._wait or 1, LONGEST_WAIT) if id == self._refused else 1
        self._refused, self._waited = id, 0

    def __enter__(self) -> Self:
        for act, interval in self._intervals.items():
            self._threads.append(threading.Thread(target=self._repeat, args=(act, interval), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, act: Callable[[], None], interval: float) -> None:
        while not self._stop.wait(interval):
            act()
