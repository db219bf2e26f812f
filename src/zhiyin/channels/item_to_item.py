"""The item-to-item channel: what lies nearest to the user's latest items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zhiyin.channels.base import Found, Neighbourhoods, Seeker, unit_vectors
from zhiyin.channels.searching import search
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SpecError
from zhiyin.release import Arrays, Release


@dataclass(frozen=True, slots=True)
class ItemToItem:
    """The neighbours of the user's `last` distinct items, newest first, all found in one index call: a candidate's
    score is its inner product with the nearest of them (each of length 1, so that a long vector counts no more). None
    of them is a neighbour itself."""

    last: int = 5

    def __post_init__(self) -> None:
        if self.last < 1:
            raise SpecError(f"{self.last}", where=".last", expected="at least 1")

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        return {}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        """By an event whose item has a vector."""
        return bool(len(_there(seeker)))

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        latest = [self._latest(release, seeker) for seeker in seekers]
        found = iter(
            search(
                release,
                [unit_vectors(release, rows) for rows in latest if len(rows)],
                [replace(s, hidden=np.union1d(s.hidden, r)) for s, r in zip(seekers, latest, strict=True) if len(r)],
            )
        )
        nothing = Found(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32))
        return [_without_interests(next(found)) if len(rows) else nothing for rows in latest]

    def _latest(self, release: Release, seeker: Seeker) -> np.ndarray:
        """Newest first."""
        rows = _there(seeker)[::-1]
        _, first = np.unique(rows, return_index=True)
        return rows[np.sort(first)[: self.last]]


def _there(seeker: Seeker) -> Rows:
    """The history without items that were deleted or blocked."""
    return seeker.rows if not len(seeker.gone) else seeker.rows[~np.isin(seeker.rows, seeker.gone)]


def _without_interests(found: Found) -> Found:
    return replace(found, interests=np.full_like(found.rows, UNKNOWN))


EXAMPLES = (ItemToItem(), ItemToItem(last=1))
