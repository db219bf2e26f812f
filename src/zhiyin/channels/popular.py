"""The popular channel: what most users chose, for those of whom nothing is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zhiyin.channels.base import Found, Seeker, visible
from zhiyin.release import Release


@dataclass(frozen=True, slots=True)
class Popular:
    """The release's most popular items; the score is 1 / rank."""

    name: str = "popular"

    def find(self, release: Release, seekers: Sequence[Seeker]) -> list[Found]:
        return [self._find(release, seeker) for seeker in seekers]

    def _find(self, release: Release, seeker: Seeker) -> Found:
        places = np.flatnonzero(visible(release.popular, seeker.hidden))[: seeker.k]
        scores = (1.0 / (places + 1)).astype(np.float32)
        return Found(release.popular[places], scores, np.zeros(len(places), np.int32))


EXAMPLES = (Popular(),)
