"""What a channel is: one way to find candidates for some seekers in one release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.indexes.base import Vectors
from zhiyin.release import Release
from zhiyin.stores.base import Event


@dataclass(frozen=True, slots=True)
class Seeker:
    """One user who wants `k` candidates, as one release sees them.

    `rows` [h] and `events`: the history this release knows, oldest first. `hidden`: rows that must not come back,
    sorted. `context` holds the request's own facts, its time among them.
    """

    rows: Rows
    events: Sequence[Event]
    profile: Mapping[str, Any]
    context: Mapping[str, Any]
    hidden: Rows
    k: int


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
        """Up to k candidates for each seeker, none of them hidden; fewer only when the release has no more."""
        ...


def visible(rows: Rows, hidden: Rows) -> np.ndarray:
    """bool [f]: which of these rows are hits, and not hidden."""
    there: np.ndarray = rows != UNKNOWN
    if len(hidden):
        there &= ~np.isin(rows, hidden)
    return there
