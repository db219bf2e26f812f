"""The deep channel: the user tower runs now, and the index is searched with what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zhiyin.channels.base import Found, Seeker, left, visible
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.features.base import Encoded
from zhiyin.features.schema import Schema, encode_records
from zhiyin.indexes.base import Vectors
from zhiyin.release import Arrays, Release


@dataclass(frozen=True, slots=True)
class Deep:
    """The towers of the release. Several interests are searched in one call and merged by best score."""

    name: str = "deep"

    def find(self, release: Release, seekers: Sequence[Seeker]) -> list[Found]:
        if not seekers:
            return []
        users = release.user_tower(encode(release.schema, seekers))
        found = [Found(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32))] * len(seekers)
        for (fetch, _), group in _groups(seekers, len(release.items)).items():
            flat = np.ascontiguousarray(users[group].reshape(-1, users.shape[-1]))
            hits = release.index.search(flat, fetch, seekers[group[0]].allowed)
            shape = (len(group), users.shape[1], fetch)
            rows, scores = hits.rows.reshape(shape), hits.scores.reshape(shape)
            for at, place in enumerate(group):
                found[place] = _merge(rows[at], scores[at], seekers[place])
        return [
            one if len(one.rows) >= wanted(release, seeker) else _exact(release, users[i], seeker)
            for i, (one, seeker) in enumerate(zip(found, seekers, strict=True))
        ]


def encode(schema: Schema, seekers: Sequence[Seeker]) -> Arrays:
    """The user tower's inputs for these seekers: the same features that training saw, encoded by the same code."""
    length = schema.history_length
    history = np.full((len(seekers), length), UNKNOWN, np.int64)
    for i, seeker in enumerate(seekers):
        rows = seeker.rows[-length:]
        history[i, length - len(rows) :] = rows
    inputs = encode_records(schema.user, [seeker.profile for seeker in seekers])
    inputs |= encode_records(schema.context, [seeker.context for seeker in seekers])
    if schema.event:
        inputs |= _encode_past(schema, seekers)
    return {"history": history, **{name: _wide(array) for name, array in inputs.items()}}


def wanted(release: Release, seeker: Seeker) -> int:
    """How many candidates this seeker can have: k, or what the release has left."""
    if seeker.allowed is None:
        return min(seeker.k, release.size - len(seeker.hidden))
    passing, hidden = np.count_nonzero(seeker.allowed), np.count_nonzero(seeker.allowed[seeker.hidden])
    return min(seeker.k, int(passing - hidden))


def _encode_past(schema: Schema, seekers: Sequence[Seeker]) -> dict[str, Encoded]:
    length = schema.history_length
    recent = [seeker.events[-length:] for seeker in seekers]
    past = encode_records(schema.event, [event.values for events in recent for event in events])
    placed = {}
    for name, values in past.items():
        nothing = UNKNOWN if np.issubdtype(values.dtype, np.integer) else 0
        padded = np.full((len(seekers), length, *values.shape[1:]), nothing, values.dtype)
        start = 0
        for i, events in enumerate(recent):
            padded[i, length - len(events) :] = values[start : start + len(events)]
            start += len(events)
        placed[name] = padded
    return placed


def _wide(array: Encoded) -> Encoded | np.ndarray:
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array


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


def _exact(release: Release, users: Vectors, seeker: Seeker) -> Found:
    """When the index alone leaves a seeker short: search again among what is allowed."""
    allowed = left(release, seeker)
    hits = release.index.search(np.ascontiguousarray(users), max(1, min(seeker.k, int(allowed.sum()))), allowed)
    return _merge(hits.rows, hits.scores, seeker)


EXAMPLES = (Deep(),)
