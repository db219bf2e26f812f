"""Which changes of items a store may forget: those that no release needs any more.

A change is needed while a release that may be served, now or after a rollback, would show something else without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.release import Catalogue, Release
from zhiyin.service.overlay import as_of
from zhiyin.stores.base import Change, ItemStore

PAGE = 1000
"""Changes that are read and forgotten at once."""

MONTH_MS = 30 * 86_400_000
"""A deletion is kept for so long: files that were written before it may still come back."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Changes that went, and those that are kept."""

    gone: int = 0
    kept: int = 0


def prune(store: ItemStore, releases: Sequence[Release | Catalogue], now: int) -> Pruned:
    """Forget what none of the releases needs: all that may still be served, as they were built. `now`: milliseconds
    since 1970. Without releases, nothing is forgotten. Raises `StoreError`; what went by then is gone."""
    told, number = Pruned(), 0
    while releases and (page := store.changes(number, PAGE).changes):
        number = page[-1].number
        gone = store.prune_changes(absorbed(page, releases, now))
        told = replace(told, gone=told.gone + gone, kept=told.kept + len(page) - gone)
    return told


def absorbed(changes: Sequence[Change], releases: Sequence[Release | Catalogue], now: int) -> list[Change]:
    """Those that no release needs: an item that was put, and that each release has by itself; an item that was deleted
    a month ago, and that none has any more. Each release's data must be newer than the change. A block is always
    needed, for no release knows of it; that there is none any more, never."""
    items = [change.item for change in changes]
    known = np.stack([one.items.rows(items) != UNKNOWN for one in releases])
    oldest = min(as_of(one) for one in releases)
    everywhere, nowhere = np.asarray(known.all(axis=0)), np.asarray(~known.any(axis=0))

    def is_absorbed(at: int, change: Change) -> bool:
        if change.blocked is not None:
            return not change.blocked
        known = everywhere[at] if change.values is not None else nowhere[at] and change.time <= now - MONTH_MS
        return bool(known) and change.time <= oldest

    return [change for at, change in enumerate(changes) if is_absorbed(at, change)]
