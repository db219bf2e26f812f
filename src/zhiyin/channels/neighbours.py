"""A baseline published as a channel: the neighbours that item-kNN or EASE gives each item of the history, added up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhiyin.channels.base import Found, Neighbourhoods, Seeker, best, unpublished
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import Rows
from zhiyin.errors import SpecError
from zhiyin.release import Arrays, Release


@dataclass(frozen=True, slots=True)
class Neighbours:
    """`baseline`: which, as `[model]` says a model: it is fitted on the whole log when a release is published, and the
    `keep` nearest neighbours of each item go into the release. A candidate's score is the baseline's own: the sum of
    its similarities to the distinct items of the history."""

    baseline: Mapping[str, Any] = field(default_factory=lambda: {"use": "item_knn:ItemKNN"})
    keep: int = 100

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise SpecError(f"{self.keep}", where=".keep", expected="at least 1")

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        """`offsets` [m + 1]: row i's neighbours are `rows`[offsets[i]:offsets[i+1]], of these `scores`; `half_life`
        [1]: an item so many events back counts half, 0: all count alike."""
        return neighbourhoods(self.baseline, self.keep)

    def knows(self, release: Release, seeker: Seeker) -> bool:
        """By an event that the release knows."""
        return bool(len(seeker.rows))

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        if not tables:
            raise unpublished(release)
        return [_find(tables, seeker) for seeker in seekers]


def _find(tables: Arrays, seeker: Seeker) -> Found:
    rows, weights = _history(tables, seeker)
    starts = tables["offsets"][rows]
    counts = tables["offsets"][rows + 1] - starts
    ends = np.cumsum(counts)
    places = np.arange(counts.sum()) + np.repeat(starts - (ends - counts), counts)
    candidates, which = np.unique(tables["rows"][places], return_inverse=True)
    scores = np.bincount(which, tables["scores"][places] * np.repeat(weights, counts), minlength=len(candidates))
    return best(candidates, scores.astype(np.float32), seeker)


def _history(tables: Arrays, seeker: Seeker) -> tuple[Rows, NDArray[np.float64]]:
    """The distinct items of the history that the table has, and what each weighs: its latest event says."""
    newest_first = seeker.rows[::-1]
    rows, ages = np.unique(newest_first, return_index=True)
    there = rows < len(tables["offsets"]) - 1
    (half_life,) = tables["half_life"].tolist()
    weights = 0.5 ** (ages[there] / half_life) if half_life else np.ones(np.count_nonzero(there))
    return rows[there], weights


EXAMPLES = (Neighbours(keep=20), Neighbours(baseline={"use": "ease:EASE", "penalty": 50.0}, keep=20))
