"""The popular channel: what most users chose, for those of whom nothing is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zhiyin.channels.base import Found, Seeker, left, visible
from zhiyin.release import Release


@dataclass(frozen=True, slots=True)
class Popular:
    """The release's most popular items; the score is 1 / rank. When too few of those that the release ranks may come,
    the others follow by row."""

    name: str = "popular"

    def find(self, release: Release, seekers: Sequence[Seeker]) -> list[Found]:
        return [self._find(release, seeker) for seeker in seekers]

    def _find(self, release: Release, seeker: Seeker) -> Found:
        places = np.flatnonzero(visible(release.popular, seeker))[: seeker.k]
        rows = release.popular[places]
        if len(rows) < seeker.k:
            others = left(release, seeker)
            others[release.popular] = False
            more = np.flatnonzero(others)[: seeker.k - len(rows)].astype(np.int32)
            rows = np.concatenate([rows, more])
            places = np.concatenate([places, len(release.popular) + np.arange(len(more))])
        scores = (1.0 / (places + 1)).astype(np.float32)
        return Found(rows, scores, np.zeros(len(rows), np.int32))


EXAMPLES = (Popular(),)
