"""What a channel is: one way to find candidates for some seekers in one release."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import RequestError
from zhiyin.indexes.base import Allowed, Vectors
from zhiyin.release import Arrays, Release
from zhiyin.stores.base import Event

Neighbourhoods = Callable[[Mapping[str, Any], int], Arrays]
"""(a baseline as a recipe's table says it, how many of each item's neighbours to keep) → that baseline's neighbours:
`offsets` [m + 1], `rows`, `scores`, and `half_life` (`zhiyin.channels.neighbours`). The offline half does it."""


@dataclass(frozen=True, slots=True)
class Seeker:
    """One user who wants `k` candidates, as one release sees them.

    `rows` [h] and `events`: the history this release knows, oldest first. `hidden`: rows that must not come back,
    sorted. `context` holds the request's own facts, its time among them. `allowed` [m]: the only rows that may come
    back; None for any. `gone`: rows of items that were deleted, ascending, none of them hidden or allowed.
    """

    rows: Rows
    events: Sequence[Event]
    profile: Mapping[str, Any]
    context: Mapping[str, Any]
    hidden: Rows
    k: int
    allowed: Allowed | None = None
    gone: Rows = field(default_factory=lambda: np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Found:
    """[f] distinct rows, f ≤ k, by descending score; `interests` [f] which of the user's interests found each: 0 with
    one, `UNKNOWN` where the channel knows of none."""

    rows: Rows
    scores: Vectors
    interests: Rows

    def only(self, places: Sequence[int] | NDArray[Any]) -> "Found":
        """What stands at these places, in their order."""
        return Found(self.rows[places], self.scores[places], self.interests[places])


@runtime_checkable
class Channel(Protocol):
    """A way to find candidates: a frozen dataclass, its fields are its settings."""

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        """What it wants to find in a release, computed from the whole log when one is published; {} for nothing.

        Raises `DataError` where the log cannot give it."""
        ...

    def knows(self, release: Release, seeker: Seeker) -> bool:
        """Whether there is something to go by. Whom it does not know gets the cold channel's candidates instead."""
        ...

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        """Up to k candidates for each seeker, all allowed and none hidden, one answered as in a crowd.

        `tables`: what the release holds for this channel, {} for nothing. Called from many threads at once. Raises
        `RequestError` where the release lacks what it needs."""
        ...


def visible(rows: Rows, seeker: Seeker) -> np.ndarray:
    """bool [f]: which of these rows are hits, allowed, and neither hidden nor gone."""
    there: np.ndarray = rows != UNKNOWN
    if seeker.allowed is not None:
        there &= seeker.allowed[rows]
    if len(seeker.hidden):
        there &= ~np.isin(rows, seeker.hidden)
    if len(seeker.gone):
        at = np.minimum(np.searchsorted(seeker.gone, rows), len(seeker.gone) - 1)
        there &= seeker.gone[at] != rows
    return there


def left(release: Release, seeker: Seeker) -> Allowed:
    """bool [m]: every row of the release that may come back, in an array of its own."""
    rows = np.ones(len(release.items), bool) if seeker.allowed is None else seeker.allowed.copy()
    rows[seeker.hidden] = False
    rows[seeker.gone] = False
    return rows


def best(rows: Rows, scores: Vectors, seeker: Seeker) -> Found:
    """The k of largest score among distinct rows, equal ones by row, without what the seeker may not see."""
    there = visible(rows, seeker)
    rows, scores = rows[there], scores[there]
    order = np.lexsort((rows, -scores))[: seeker.k]
    return Found(rows[order].astype(np.int32), scores[order], np.full(len(order), UNKNOWN, np.int32))


def unit_vectors(release: Release, rows: Rows) -> Vectors:
    """[n, d] these items' vectors, each of length 1; of an item that is gone, 0."""
    vectors = release.vectors_of(rows).copy()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    return vectors


def unpublished(release: Release, remedy: str = "") -> RequestError:
    """What a channel raises that misses its tables."""
    return RequestError(
        f"release '{release.id}' was published without this channel",
        remedy=remedy or "Put it into the recipe under [online.channels], and publish again.",
    )
