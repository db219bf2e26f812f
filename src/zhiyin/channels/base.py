"""What a channel is: one way to find candidates for some seekers in one release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.indexes.base import Allowed, Vectors
from zhiyin.release import Release
from zhiyin.stores.base import Event


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
    """[f] rows, f ≤ k, by descending score; `interests` [f] which of the user's interests found each (0 with one)."""

    rows: Rows
    scores: Vectors
    interests: Rows


class Channel(Protocol):
    """A way to find candidates."""

    @property
    def name(self) -> str: ...

    def find(self, release: Release, seekers: Sequence[Seeker]) -> list[Found]:
        """Up to k candidates for each seeker, all allowed and none hidden; fewer only when the release has no more."""
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
