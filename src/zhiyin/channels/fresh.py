"""The fresh channel: the newest items, or of them what the user may like, so that what is new is tried at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from zhiyin.channels.base import Found, Neighbourhoods, Seeker, unpublished
from zhiyin.channels.deep import Deep, user_vectors
from zhiyin.channels.orders import first, placed
from zhiyin.data.attributes import Attributes
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import DAY
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import DataError, SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.release import Arrays, Release
from zhiyin.spec import nearest


@dataclass(frozen=True, slots=True)
class Fresh:
    """Items by when they came, the newest first; the score is 1 / rank. `column`: of the item table, with the time
    (Unix seconds, or dates); without it an item came with its first event. `days`: only items that came in the log's
    last so many days. `among`: of the newest so many that may come, those come first that the towers score highest for
    the user, and the score is theirs; 0, or a user of whom the towers know nothing: the newest first.

    Rows that the release was published without (items that were added while it serves) are newer than all it knows,
    the last added first.
    """

    column: str = ""
    days: float | None = None
    among: int = 0

    def __post_init__(self) -> None:
        if self.among < 0:
            raise SpecError(f"{self.among}", where=".among", expected="at least 0")
        if self.days is not None and not 0 < self.days < math.inf:
            raise SpecError(f"{self.days}", where=".days", expected="a number above 0")

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        """`rows` newest first, equal ones by row, those without a time last. Raises `DataError` where neither the
        column nor the log's clock tells."""
        seconds = _column(data, self.column) if self.column else _first_seen(data)
        order = np.argsort(-seconds, kind="stable")  # NaN comes last
        if self.days is not None:
            since = data.events.times.max(initial=0) / 1000 - self.days * DAY / 1000
            order = order[seconds[order] > since]
        return {"rows": order.astype(np.int32)}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        return True

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        if not tables:
            raise unpublished(release)
        added = np.empty(0, np.int32) if release.since is None else release.since.fresh
        order: Rows = np.concatenate([added, tables["rows"]]) if len(added) else tables["rows"]
        if self.among:
            known = [Deep().knows(release, seeker) for seeker in seekers]
            vectors = iter(user_vectors(release, [one for one, so in zip(seekers, known, strict=True) if so]))
        else:
            known, vectors = [False] * len(seekers), iter(())
        return [
            self._liked(release, order, seeker, next(vectors)) if so else _newest(order, seeker)
            for seeker, so in zip(seekers, known, strict=True)
        ]

    def _liked(self, release: Release, order: Rows, seeker: Seeker, vectors: Vectors) -> Found:
        """The k best of the newest by their inner product with any of the user's vectors [h, d], equal ones newest
        first."""
        rows = order[first(order, replace(seeker, k=self.among))]
        scores = release.vectors_of(rows) @ vectors.T
        best = scores.max(axis=1, initial=-np.inf)
        chosen = np.argsort(-best, kind="stable")[: seeker.k]
        interests = scores[chosen].argmax(axis=1) if len(chosen) else chosen
        return Found(rows[chosen].astype(np.int32), best[chosen], interests.astype(np.int32))


def _newest(order: Rows, seeker: Seeker) -> Found:
    places = first(order, seeker)
    return placed(order[places], places)


def _first_seen(data: Prepared) -> NDArray[np.float64]:
    """[m] Unix seconds of each item's first event, NaN for one without."""
    if not data.clock:
        raise DataError(
            "the log has no clock times, so it does not say when an item came",
            where="channel Fresh",
            remedy="Name a `column` of the item table that does.",
        )
    known = data.events.items != UNKNOWN
    first_times = np.full(len(data.items), np.iinfo(np.int64).max)
    np.minimum.at(first_times, data.events.items[known], data.events.times[known])
    return np.where(first_times == np.iinfo(np.int64).max, np.nan, first_times / 1000)


def _column(data: Prepared, name: str) -> NDArray[np.float64]:
    """[m] Unix seconds, NaN where there are none."""
    known = list(data.item_table)
    if name not in known:
        raise DataError(
            f"no column {name!r}{nearest(name, known)}",
            where="channel Fresh column",
            expected=f"one of {', '.join(known)}" if known else "",
            remedy="" if known else "The log has no item table: set data.items.",
        )
    attributes = Attributes.of(Table(data.item_table.arrow.select([name])))
    if attributes.kinds.get(name) == "number":
        return np.asarray(attributes.column(name).to_numpy(zero_copy_only=False), np.float64)
    found = _dates(attributes.column(name).to_pylist()) if attributes.kinds.get(name) == "text" else None
    if found is None:
        raise DataError(f"{name!r} holds no times", where="channel Fresh column", expected="Unix seconds, or dates")
    return found


def _dates(texts: Sequence[str | None]) -> NDArray[np.float64] | None:
    """[m] Unix seconds of dates and timestamps as an item table keeps them, UTC where they name no zone; None where one
    is no date."""
    seconds = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        if text is None:
            continue
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        seconds[row] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds


EXAMPLES = (Fresh(), Fresh(days=1), Fresh(among=20))
