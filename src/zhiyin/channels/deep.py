"""The deep channel: the user tower runs now, and the index is searched with what it says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zhiyin.channels.base import Found, Neighbourhoods, Seeker
from zhiyin.channels.searching import search
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.features.base import Encoded
from zhiyin.features.schema import Schema, encode_records
from zhiyin.indexes.base import Vectors
from zhiyin.release import Arrays, Release


@dataclass(frozen=True, slots=True)
class Deep:
    """The towers of the release. Several interests are searched in one call and merged by best score."""

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        return {}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        """By an event that the release knows, or a profile value that a feature reads."""
        told = {feature.column or feature.name for feature in release.schema.user}
        return bool(len(trained_rows(release, seeker))) or any(seeker.profile.get(name) is not None for name in told)

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        return search(release, user_vectors(release, seekers), seekers)


def user_vectors(release: Release, seekers: Sequence[Seeker]) -> list[Vectors]:
    """Of each seeker [h, d], what the user tower says now."""
    if not seekers:
        return []
    return list(release.user_tower(encode(release.schema, [_trained(release, seeker) for seeker in seekers])))


def trained_rows(release: Release, seeker: Seeker) -> Rows:
    """The history without items that came after the towers were trained."""
    return seeker.rows if release.since is None else seeker.rows[seeker.rows < release.built]


def _trained(release: Release, seeker: Seeker) -> Seeker:
    """The seeker without the events of items that came after the towers were trained."""
    if release.since is None:
        return seeker
    there = seeker.rows < release.built
    events = [event for event, known in zip(seeker.events, there, strict=True) if known]
    return replace(seeker, rows=seeker.rows[there], events=events)


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


EXAMPLES = (Deep(),)
