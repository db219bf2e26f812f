"""A release, and what became of its items since it was built, laid over it.

An item that was put goes through the release's item tower: with its own row where the release knows it, with the row
of an unknown item where it does not. Its vector lies in a small index beside the release's, its attributes in a patch,
its id after the release's own. What was deleted is taken out of everything that finds.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from zhiyin.data import vocabulary
from zhiyin.data.patch import Patch
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.features.bag import Bag
from zhiyin.features.schema import Schema, encode_records, source
from zhiyin.indexes.base import IndexSpec, Vectors
from zhiyin.indexes.delta import Layer, Part
from zhiyin.indexes.delta import Live as Delta
from zhiyin.indexes.grown import Grown
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.release import Catalogue, Release, Since
from zhiyin.stores.base import Change

logger = logging.getLogger("zhiyin")

COMPACT_AT = 32_768
"""From so many items on that were put since the last time, they are built into an approximate index of their own: exact
search of so many costs about as much (docs/decisions/0043)."""

COMPACTED = IVFFlat(nlist=128, nprobe=64)
"""Which index: built in a tenth of a second, and at home with items that are alike."""

AT_ONCE = 1024
"""Items that go through the tower together."""

Values = Mapping[str, Any]


class Overlay:
    """One release and the changes applied to it so far. For one thread at a time; the views that it gives never change,
    and may be read by any number.

    A change that is older than the release's data, of an item that it knows, has been absorbed: the release's own row
    is shown. A deletion holds, however old, until the item is put again; a block until it is taken back, whatever else
    becomes of the item, which shows at its place again then.
    """

    def __init__(
        self, base: Release, *, pruned: int = 0, spec: IndexSpec = COMPACTED, compact_at: int = COMPACT_AT
    ) -> None:
        """`pruned`: what the store had pruned when its changes were begun to be read, for this. `spec`: the index that
        fresh items are built into when they are many; until then search of them is exact."""
        self.base, self.number, self.pruned = base, 0, pruned
        self._as_of = as_of(base)
        self._compact_at = compact_at
        self._layer = Layer(Part(np.arange(base.built, dtype=np.int32), base.vectors, base.index))
        self._delta = Delta(spec, np.empty((0, base.vectors.shape[1]), np.float32))
        self._shown = 0
        self._later: dict[str, int] = {}
        self._names: list[str] = []
        self._records: dict[int, Values] = {}
        self._deleted: set[int] = set()
        self._blocked: dict[str, int] = {}  # item → its row, `UNKNOWN` where there is no such item yet

    @property
    def stale(self) -> bool:
        """Whether a view that was taken before would be searched faster if it were taken anew."""
        return self._delta.generation != self._shown

    def apply(self, changes: Sequence[Change]) -> None:
        """Take over changes, by number; a later one of an item counts."""
        latest = {change.item: change for change in changes if change.blocked is None}
        rows = dict(zip(latest, self._rows(list(latest)).tolist(), strict=True))
        put = {item: one.values for item, one in latest.items() if one.values is not None}
        absorbed = {item for item in put if 0 <= rows[item] < self.base.built and latest[item].time <= self._as_of}
        deleted = {rows[item] for item in latest if item not in put and rows[item] != UNKNOWN}
        restored = {rows[item] for item in absorbed}
        shown, lost = self._put({item: values for item, values in put.items() if item not in absorbed}, rows)
        self._forget(deleted | restored | lost)
        self._deleted = (self._deleted | deleted | lost) - restored - shown
        told = self._block({change.item: change.blocked for change in changes if change.blocked is not None})
        touched = shown | deleted | lost | restored | told
        hidden = self._hidden()
        self._delta.delete(np.array(sorted(touched & hidden), np.int32))
        self._mark(touched, hidden)
        self.number = max(self.number, *(change.number for change in changes), 0)
        self._compact()

    def view(self) -> Release:
        """The release as it is now; the release itself while nothing is changed."""
        self._shown = self._delta.generation
        hidden = self._hidden()
        if not self._records and not self._deleted and not hidden:
            return self.base
        items = vocabulary.Grown(self.base.items, self._later, self._names)
        gone = np.array(sorted(self._deleted | hidden), np.int32)
        blocked = np.array(sorted(hidden - self._deleted), np.int32)
        index = Grown(self._layer, self._delta.state, len(items))
        put = np.array([row for row in reversed(self._records) if row not in hidden], np.int32)
        since = Since(put[put >= self.base.built], gone, blocked, index, self._patch(gone, len(items)))
        popular = self.base.popular[since.left(self.base.popular)]
        return replace(self.base, items=items, index=index, popular=popular, since=since)

    def _patch(self, gone: Rows, size: int) -> Patch | None:
        attributes = self.base.attributes
        return (
            None
            if attributes is None
            else Patch(attributes, dict(self._records), separators(self.base.schema), gone, size)
        )

    def _put(self, put: Mapping[str, Values], rows: Mapping[str, int]) -> tuple[set[int], set[int]]:
        """Show these items. Returns the rows that are shown, and those that are lost: the tower cannot place them."""
        items = list(put)
        known = np.array([rows[item] if rows[item] < self.base.built else UNKNOWN for item in items], np.int32)
        vectors = item_vectors(self.base, known, [put[item] for item in items])
        with np.errstate(over="ignore", invalid="ignore"):
            placed = np.isfinite(np.einsum("md,md->m", vectors, vectors))
        if not self.base.schema.item:
            placed &= known != UNKNOWN
        if not placed.all():
            names = [item for item, there in zip(items, placed, strict=True) if not there]
            logger.warning("%d items have no vector in release %s: %s", len(names), self.base.id, ", ".join(names[:5]))
        lost = {rows[item] for item, there in zip(items, placed, strict=True) if not there} - {UNKNOWN}
        shown = [item for item, there in zip(items, placed, strict=True) if there]
        at = [self._new_row(item) if rows[item] == UNKNOWN else rows[item] for item in shown]
        self._delta.put(np.array(at, np.int32), vectors[placed])
        for row, item in zip(at, shown, strict=True):
            self._records.pop(row, None)  # the last put stands last
            self._records[row] = put[item]
        return set(at), lost

    def _forget(self, rows: set[int]) -> None:
        known = rows & self._records.keys()
        if known:
            self._delta.delete(np.array(sorted(known), np.int32))
        for row in known:
            del self._records[row]

    def _block(self, told: Mapping[str, bool]) -> set[int]:
        """Block items, or no longer; those that were put go back to where they are found. Returns the rows of all."""
        rows = dict(zip(told, self._rows(list(told)).tolist(), strict=True))
        for item, blocked in told.items():
            if blocked:
                self._blocked[item] = rows[item]
            else:
                self._blocked.pop(item, None)
        back = np.array([rows[item] for item, so in told.items() if not so and rows[item] in self._records], np.int32)
        known = np.where(back < self.base.built, back, np.int32(UNKNOWN))
        self._delta.put(back, item_vectors(self.base, known, [self._records[row] for row in back.tolist()]))
        return set(rows.values()) - {UNKNOWN}

    def _hidden(self) -> set[int]:
        """The rows of all that is blocked."""
        return set(self._blocked.values()) - {UNKNOWN}

    def _mark(self, rows: set[int], hidden: set[int]) -> None:
        """Say which of these rows, so far as they are the release's own, its index still finds."""
        own = np.array([row for row in rows if row < self.base.built], np.int64)
        others = (self._records.keys(), self._deleted, hidden)
        found = np.array([not any(row in some for some in others) for row in own.tolist()], bool)
        if not found.all() or (len(own) and self._layer.dead):
            alive = np.ones(self.base.built, bool) if self._layer.alive is None else self._layer.alive.copy()
            alive[own] = found
            self._layer = self._layer.with_only(alive)

    def _rows(self, items: list[str]) -> Rows:
        return vocabulary.Grown(self.base.items, self._later, self._names).rows(items)

    def _new_row(self, item: str) -> int:
        row = self._later[item] = self.base.built + len(self._names)
        self._names.append(item)
        if item in self._blocked:
            self._blocked[item] = row
        return row

    def _compact(self) -> None:
        if self._delta.changed >= max(self._compact_at, len(self._delta) // 4):
            self._delta.compact().add_done_callback(_tell)


def item_vectors(release: Release, rows: Rows, records: Sequence[Values]) -> Vectors:
    """float32 [n, d]: the item tower's vectors of items with these values, in rows that the release knows or `UNKNOWN`
    ones."""
    parts = [np.empty((0, release.vectors.shape[1]), np.float32)]
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        inputs: dict[str, Any] = {"rows": rows[part].astype(np.int64)}
        for name, array in encode_records(release.schema.item, list(records[part])).items():
            inputs[name] = array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
        parts.append(release.item_tower(inputs))
    return np.concatenate(parts)


def as_of(release: Release | Catalogue) -> float:
    """Milliseconds since 1970: what was changed by then, the release knows. Before all time where it does not say."""
    told = (release.manifest.get(name) for name in ("items_as_of", "prepared", "created"))
    said = next((one for one in told if one is not None), None)
    return float("-inf") if said is None else 1e3 * datetime.fromisoformat(said).timestamp()


def separators(schema: Schema) -> dict[str, str]:
    """What parts the text of columns that a bag feature reads."""
    return {source(one): one.separator for one in schema.item if isinstance(one, Bag)}


def _tell(compaction: "Future[int]") -> None:
    error = compaction.exception()
    if error is not None:
        logger.error("fresh items could not be compacted: %s", error)
