"""A release: all that the online path needs, as one immutable thing.

    releases/                    a folder, or a URL (then the folder has copies)
      CURRENT                    the id of the live release: one line, replaced at once
      PINNED                     the ids of those that no prune removes
      20260101-120000-3f2a/
        manifest.json            format, schema, specs, metrics, and the sha256 of every other file
        items/                   the vocabulary of the catalogue
        vectors.npy              float32 [m, d], one row an item
        index.bin                the index, in its backend's own format
        user_tower.onnx  item_tower.onnx    and beside them, where they are large, their weights: ….onnx.data
        channels/                what channels find by
        popular.npy              rows, most popular first: the fallback
        attributes.arrow         the columns of the item table that filters read
        golden/                  queries and the user vectors that the trained model gave them

Nothing here knows torch. No file is a pickle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from zhiyin import spec
from zhiyin.data.attributes import Attributes
from zhiyin.data.patch import Patch
from zhiyin.data.vocabulary import UNKNOWN, Ids, Rows, Vocabulary
from zhiyin.errors import ReleaseError
from zhiyin.features.schema import Schema
from zhiyin.indexes.base import Searchable, Vectors
from zhiyin.indexes.grown import Grown
from zhiyin.manifest import read_manifest, verify
from zhiyin.places.base import MANIFEST, Hold

ATTRIBUTES = "attributes.arrow"
CHANNELS = "channels"
INDEX = "index.bin"
ITEMS = "items"

Arrays = Mapping[str, NDArray[Any]]
"""Named arrays: the inputs of a tower, or what a channel wants to find in a release."""


class Tower:
    """A tower in ONNX: arrays in, vectors out. Safe from many threads at once. A call has one thread: a second costs a
    request's tail more than it gains, and a whole catalogue is shared between calls."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base but this
            raise ReleaseError(f"not a tower that ONNX Runtime can run ({error})", where=str(path)) from None
        self._inputs = {i.name for i in self._session.get_inputs()}

    def __call__(self, inputs: Arrays) -> Vectors:
        """float32: [n, h, d] of a user tower, [m, d] of an item tower. Inputs that the tower does not read are left."""
        vectors: Vectors = self._session.run(None, {k: v for k, v in inputs.items() if k in self._inputs})[0]
        return vectors


@dataclass(frozen=True, slots=True)
class Since:
    """What became of a release's items since it was built. `fresh`: the rows of items that it was built without, those
    put last first; `gone`: rows that are no more to be found, ascending; `blocked`: those among them that are there all
    the same, ascending; `patch`: the attributes of what was put, None where the release has none."""

    fresh: Rows
    gone: Rows
    blocked: Rows
    index: Grown
    patch: Patch | None

    def left(self, rows: Rows) -> NDArray[np.bool_]:
        """[n] which of these rows are not gone."""
        if not len(self.gone):
            return np.ones(len(rows), bool)
        at = np.minimum(np.searchsorted(self.gone, rows), len(self.gone) - 1)
        return np.asarray(self.gone[at] != rows)


@dataclass(frozen=True, slots=True)
class Release:
    """One open release. `vectors` [m, d], the vocabulary and the attributes are memory-mapped; `popular` rows, most
    popular first; `attributes` is None in a release that was published before there were filters; `tables`: what was
    published for channels, by the channel's name, memory-mapped.

    `since` is None in a release as it was published. One with fresh and deleted items has a vocabulary that goes on
    after row m-1, and an index that finds what is there now; towers, `vectors` and `attributes` stay the release's.
    While there is a `hold`, the release is in use.
    """

    id: str
    items: Ids
    schema: Schema
    user_tower: Tower
    item_tower: Tower
    index: Searchable
    vectors: Vectors
    popular: Rows
    manifest: Mapping[str, Any]
    attributes: Attributes | None = None
    tables: Mapping[str, Arrays] = field(default_factory=dict)
    since: Since | None = None
    hold: Hold | None = None

    def __repr__(self) -> str:
        model = str(self.manifest.get("model", {}).get("use", "")).rpartition(":")[2]
        return f"<release {self.id}: {self.size:,} items by {model or 'a model'}, {self.vectors.shape[1]} numbers each>"

    @property
    def built(self) -> int:
        """How many rows it was built with: those that its towers know, the lowest."""
        return len(self.vectors)

    @property
    def size(self) -> int:
        """How many items can be found."""
        return len(self.items) if self.since is None else len(self.since.index)

    def finds(self, items: Sequence[str]) -> NDArray[np.bool_]:
        """[n] which of these items can be found."""
        rows = self.items.rows(items)
        there: NDArray[np.bool_] = rows != UNKNOWN
        return there if self.since is None else there & self.since.left(rows)

    def blocks(self, items: Sequence[str]) -> NDArray[np.bool_]:
        """[n] which of these items are there, and cannot be found because they are blocked."""
        rows = self.items.rows(items)
        return np.zeros(len(rows), bool) if self.since is None else np.isin(rows, self.since.blocked)

    def vectors_of(self, rows: Rows) -> Vectors:
        """[n, d] the vectors of these rows, fresh ones among them; zeros for one that is gone."""
        return np.asarray(self.vectors[rows]) if self.since is None else self.since.index.vectors(rows)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a release and verify every file of it.

        Raises `ReleaseError` naming the file that is missing, damaged or not in the manifest, or the newer format;
        `SpecError` or `SearchError` for an index or a feature that is not installed here.
        """
        manifest = read_manifest(folder)
        verify(folder, manifest)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        index = spec.used_build(manifest["index"], "zhiyin.indexes", f"{folder / MANIFEST} index")
        return cls(
            manifest["id"],
            Vocabulary.open(folder / ITEMS),
            spec.build(Schema, manifest["schema"], f"{folder / MANIFEST} schema"),
            Tower(folder / "user_tower.onnx"),
            Tower(folder / "item_tower.onnx"),
            index.load(folder / INDEX, vectors),
            vectors,
            np.load(folder / "popular.npy"),
            manifest,
            Attributes.open(folder / ATTRIBUTES) if ATTRIBUTES in manifest["files"] else None,
            {path.name: _arrays(path) for path in sorted((folder / CHANNELS).glob("*"))},
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Which items a release has, and what it says of itself."""

    items: Ids
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises `ReleaseError` like `Release.open`, but of the release's files only those with its items are read."""
        manifest = read_manifest(folder)
        verify(folder, manifest, f"{ITEMS}/")
        return cls(Vocabulary.open(folder / ITEMS), manifest)


def _arrays(folder: Path) -> Arrays:
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
