"""Channels whose candidates stand in an order beforehand: the first that a seeker may see, then what is popular."""

import numpy as np

from zhiyin.channels.base import Found, Seeker, left, visible
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.release import Release


def first(order: Rows, seeker: Seeker) -> Rows:
    """Places in the order of the first k rows that the seeker may see."""
    size = seeker.k + len(seeker.hidden)
    places = np.flatnonzero(visible(order[:size], seeker))
    while len(places) < seeker.k and size < len(order):
        size *= 4
        places = np.flatnonzero(visible(order[:size], seeker))
    return places[: seeker.k].astype(np.int32)


def placed(rows: Rows, places: Rows) -> Found:
    """These rows with the score 1 / (place + 1)."""
    scores = (1.0 / (places + 1)).astype(np.float32)
    return Found(rows.astype(np.int32), scores, np.full(len(rows), UNKNOWN, np.int32))


def completed(release: Release, order: Rows, seeker: Seeker) -> Found:
    """The first k of `order`; when too few of it may come, the release's popular items follow, and then the others by
    row. The score is 1 / place."""
    places = first(order, seeker)
    rows = order[places]
    if len(rows) < seeker.k:
        others = left(release, seeker)
        others[order[order != UNKNOWN]] = False
        popular = release.popular[others[release.popular]]
        others[popular] = False
        more = np.concatenate([popular, np.flatnonzero(others)])[: seeker.k - len(rows)]
        rows = np.concatenate([rows, more])
        places = np.concatenate([places, len(order) + np.arange(len(more))])
    return placed(rows, places)
