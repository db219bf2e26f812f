"""Which items are taken away now, by a block or a deletion: read from the store's log of changes, a page at a time.

The log and not the live release is asked: it knows ids that no release has, and when it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zhiyin.errors import RequestError
from zhiyin.stores.base import Change, ItemStore

READ = 1000
"""Changes that are read at once."""

READS = 20
"""Reads of one page: of a log of many items that were put, a page may hold less than it could."""

MOST = 1000
"""Items of one page, and as many as come unasked."""

Kind = Callable[[Change], bool]


@dataclass(frozen=True, slots=True)
class Paging:
    """`after`: where the page before ended; 0 for the first. `limit`: how many items at most."""

    after: int = 0
    limit: int = MOST

    @classmethod
    def read(cls, told: Mapping[str, str]) -> "Paging":
        """What stands after the question mark. Raises `RequestError` for a name that is none, and for a number that
        cannot be."""
        for name in told:
            if name not in ("after", "limit"):
                raise RequestError(f"unknown parameter {name!r}", expected="after, limit")
        return cls(_number(told, "after", 0, 10**18), _number(told, "limit", 1, MOST, MOST))


@dataclass(frozen=True, slots=True)
class Taken:
    """Items by when they were taken away. `next`: go on after it; None where there is no more."""

    changes: list[Change]
    next: int | None


def is_block(change: Change) -> bool:
    """Whether the item is blocked by it; the log keeps an item's last block or unblock."""
    return change.blocked is True


def is_deletion(change: Change) -> bool:
    """Whether the item is deleted by it; the log keeps an item's last put or deletion."""
    return change.blocked is None and change.values is None


def taken(store: ItemStore, kind: Kind, paging: Paging) -> Taken:
    """The next items of that kind. Whose block or deletion is told again meanwhile comes at its new place, later; none
    is passed over. Raises `StoreError`."""
    found: list[Change] = []
    after = paging.after
    for _ in range(READS):
        page = store.changes(after, READ).changes
        for change in page:
            after = change.number
            if kind(change):
                found.append(change)
            if len(found) == paging.limit:
                return Taken(found, after)
        if len(page) < READ:
            return Taken(found, None)
    return Taken(found, after)


def _number(told: Mapping[str, str], name: str, least: int, most: int, default: int = 0) -> int:
    text = told.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise RequestError(f"{text[:40]!r}", where=name, expected=f"a whole number, {least} to {most}")
    return int(text)
