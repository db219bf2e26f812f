"""Search with several vectors for each seeker: one index call for all, merged by best score."""

from collections.abc import Sequence

import numpy as np

from zhiyin.channels.base import Found, Seeker, left, visible
from zhiyin.data.vocabulary import Rows
from zhiyin.indexes.base import Vectors
from zhiyin.release import Release


def search(release: Release, vectors: Sequence[Vectors], seekers: Sequence[Seeker]) -> list[Found]:
    """The k rows of largest inner product with any of the seeker's `vectors` [h, d], h ≥ 1, by that product;
    `interests` says with which. Fewer only when the release has no more."""
    found = [Found(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32))] * len(seekers)
    for (fetch, _), group in _groups(seekers, len(release.items)).items():
        asked = np.concatenate([vectors[place] for place in group])
        hits = release.index.search(asked, fetch, seekers[group[0]].allowed)
        start = 0
        for place in group:
            stop = start + len(vectors[place])
            found[place] = _merge(hits.rows[start:stop], hits.scores[start:stop], seekers[place])
            start = stop
    return [
        one if len(one.rows) >= wanted(release, seeker) else _exact(release, asked, seeker)
        for one, asked, seeker in zip(found, vectors, seekers, strict=True)
    ]


def wanted(release: Release, seeker: Seeker) -> int:
    """How many candidates this seeker can have: k, or what the release has left."""
    if seeker.allowed is None:
        return min(seeker.k, release.size - len(seeker.hidden))
    passing, hidden = np.count_nonzero(seeker.allowed), np.count_nonzero(seeker.allowed[seeker.hidden])
    return min(seeker.k, int(passing - hidden))


def _groups(seekers: Sequence[Seeker], size: int) -> dict[tuple[int, int], list[int]]:
    """Seekers by how many hits to fetch: k and what may be hidden among them, rounded up to a power of two; and by
    which rows are allowed. Those to whom none is are in no group.

    It depends on the seeker alone, so that one user is answered exactly as in a crowd.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, seeker in enumerate(seekers):
        hidden = seeker.hidden if seeker.allowed is None else seeker.hidden[seeker.allowed[seeker.hidden]]
        fetch = 1 << (seeker.k + len(hidden) - 1).bit_length()
        if seeker.allowed is None or seeker.allowed.any():
            groups.setdefault((min(fetch, size), id(seeker.allowed)), []).append(i)
    return groups


def _merge(rows: Rows, scores: Vectors, seeker: Seeker) -> Found:
    """[h, fetch] hits of one user → the best k by their best interest."""
    interests = np.repeat(np.arange(len(rows), dtype=np.int32), rows.shape[1])
    flat, flat_scores = rows.ravel(), scores.ravel()
    there = visible(flat, seeker)
    flat, flat_scores, interests = flat[there], flat_scores[there], interests[there]
    if len(rows) > 1:
        order = np.argsort(-flat_scores, kind="stable")
        _, first = np.unique(flat[order], return_index=True)
        best = order[np.sort(first)]
        flat, flat_scores, interests = flat[best], flat_scores[best], interests[best]
    return Found(flat[: seeker.k], flat_scores[: seeker.k], interests[: seeker.k])


def _exact(release: Release, vectors: Vectors, seeker: Seeker) -> Found:
    """When the index alone leaves a seeker short: search again among what is allowed."""
    allowed = left(release, seeker)
    hits = release.index.search(np.ascontiguousarray(vectors), max(1, min(seeker.k, int(allowed.sum()))), allowed)
    return _merge(hits.rows, hits.scores, seeker)
