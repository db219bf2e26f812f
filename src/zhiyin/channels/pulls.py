"""Why a candidate is there: which items of the history lie nearest to it."""

from dataclasses import dataclass

import numpy as np

from zhiyin.channels.base import Seeker, unit_vectors
from zhiyin.data.vocabulary import Rows
from zhiyin.release import Release

MOST = 3
"""Items of the history that are named for a candidate."""


@dataclass(frozen=True, slots=True)
class Pull:
    """An item of the history, and the cosine between its vector and a candidate's."""

    item: str
    similarity: float


def pulls(release: Release, seeker: Seeker, rows: Rows) -> list[list[Pull]]:
    """For each of these candidates, the `MOST` nearest items of the history that the towers saw, the nearest first (of
    equally near ones the newest), without the candidate itself and without what was deleted or blocked."""
    seen = seeker.rows[-release.schema.history_length :][::-1]
    _, first = np.unique(seen, return_index=True)
    history = seen[np.sort(first)]
    history = history[~np.isin(history, seeker.gone)]
    near = unit_vectors(release, rows) @ unit_vectors(release, history).T
    near[rows[:, None] == history[None, :]] = -np.inf
    nearest = np.argsort(-near, axis=1, kind="stable")[:, :MOST]
    names = release.items.ids(history)
    return [
        [Pull(names[at], round(float(near[place, at]), 5)) for at in own if near[place, at] > -np.inf]
        for place, own in enumerate(nearest.tolist())
    ]
