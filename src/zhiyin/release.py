"""A release: all that the online path needs, built, checked, published, swapped, rolled back as one immutable thing.

    releases/
      CURRENT                    the id of the live release: one line, replaced by rename
      20260101-120000-3f2a/
        manifest.json            format, schema, specs, metrics, and the sha256 of every other file
        items/                   the vocabulary of the catalogue
        vectors.npy              float32 [m, d], one row an item
        index.bin                the index, in its backend's own format
        user_tower.onnx  item_tower.onnx
        popular.npy              rows, most popular first: the fallback
        attributes.arrow         the columns of the item table that filters read
        channels/NAME/           arrays that a channel of the recipe wants to find here
        golden/                  queries and the user vectors that the trained model gave them

Nothing here knows torch. No file is a pickle.
"""

import hashlib
import json
import os
import shutil
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
from zhiyin.errors import ReleaseError, SearchError, SpecError
from zhiyin.features.schema import Schema
from zhiyin.indexes.base import HostedSpec, Searchable, Vectors
from zhiyin.indexes.grown import Grown

FORMAT = 2
"""1: the first. 2: ids by MurmurHash64A (`items/murmur.npy`), and the items' attributes for filters."""

MANIFEST = "manifest.json"
CURRENT = "CURRENT"
INDEX = "index.bin"
ATTRIBUTES = "attributes.arrow"
CHANNELS = "channels"

Arrays = Mapping[str, NDArray[Any]]
"""Named arrays: the inputs of a tower, or what a channel wants to find in a release."""


class Tower:
    """A tower in ONNX: arrays in, vectors out. Safe from many threads at once. `threads`: that one call takes; a second
    costs a request's tail more than it gains, a whole catalogue takes all there are (0)."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
    put last first; `gone`: rows that are no more to be found, ascending; `patch`: the attributes of what was put, None
    where the release has none."""

    fresh: Rows
    gone: Rows
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
            Vocabulary.open(folder / "items"),
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """A release's manifest. Raises `ReleaseError` where it is missing, damaged or of a newer format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        newer = manifest["format"] > FORMAT
    except (FileNotFoundError, NotADirectoryError):
        raise ReleaseError("no release here", where=str(folder), remedy="Run `zhiyin publish recipe.toml`.") from None
    except OSError as error:
        raise ReleaseError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"damaged: {error}", where=str(path), remedy="Roll back, or publish again.") from None
    if newer:
        raise ReleaseError(
            f"release format {manifest['format']}",
            where=str(path),
            expected=f"format {FORMAT} or older",
            remedy="Upgrade zhiyin, or roll back to an older release.",
        )
    if manifest.get("digest") != manifest_digest(manifest):
        raise ReleaseError("damaged: its own checksum differs", where=str(path), remedy="Roll back, or publish again.")
    return dict(manifest)


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest without its own digest."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder` but the manifest, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises `ReleaseError` naming the first file that is missing, changed, or unknown to the manifest."""
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ReleaseError("a file is missing", where=str(path), remedy="Roll back, or publish again.")
        found = _sha256(path)
        if found != wanted:
            raise ReleaseError(
                f"damaged: sha256 {found[:16]}…", where=str(path), expected=f"{wanted[:16]}…", remedy="Roll back."
            )
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unknown = sorted(there - set(manifest["files"]) - {MANIFEST})
    if unknown:
        raise ReleaseError("a file that is not in the manifest", where=str(folder / unknown[0]), remedy="Remove it.")


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases in one folder, oldest first by id."""

    root: Path

    def ids(self) -> list[str]:
        """Every published release's id, oldest first."""
        return sorted(path.parent.name for path in self.root.glob(f"[!.]*/{MANIFEST}"))

    def current(self) -> str:
        """The live release's id. Raises `ReleaseError` when there is none."""
        try:
            id = (self.root / CURRENT).read_text().strip()
        except FileNotFoundError:
            id = ""
        if not id:
            raise ReleaseError(
                "no release is live", where=str(self.root), remedy="Run `zhiyin publish recipe.toml` first."
            )
        return id

    def open(self, id: str = "") -> Release:
        """A release by id; the live one when none is named. Raises like `Release.open`, and `ReleaseError` for a folder
        that was renamed: ids are what an answer is traced by."""
        name = id or self.current()
        release = Release.open(self.root / name)
        if release.id != name:
            raise ReleaseError(
                f"it says it is '{release.id}'", where=str(self.root / name), remedy="Give the folder that name back."
            )
        return release

    def point(self, id: str) -> None:
        """Make a release live: one rename. Raises `ReleaseError` for an id that is not here, or a release that is
        damaged or too new to be opened: what was live stays live then."""
        if id not in self.ids():
            raise ReleaseError(
                f"there is no release '{id}'{spec.nearest(id, self.ids())}",
                where=str(self.root),
                expected=f"one of {', '.join(self.ids()) or 'none: publish first'}",
            )
        verify(self.root / id, read_manifest(self.root / id))
        self.swap(id)

    def swap(self, id: str) -> None:
        """`point`, for a release that has just proved itself. Raises `ReleaseError`, beside `OSError`, where it is live
        but the alias in a database did not follow."""
        hidden = self.root / f".{CURRENT}.{os.urandom(4).hex()}"
        try:
            with hidden.open("w") as file:
                file.write(id + "\n")
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(self.root / CURRENT)
        finally:
            hidden.unlink(missing_ok=True)
        sync_folder(self.root)
        self._follow(id)

    def roll_back(self) -> str:
        """Make the release before the live one live, and say which. Raises `ReleaseError` when it is the oldest, and
        like `point`."""
        live = self.current()
        older = [id for id in self.ids() if id < live]
        if not older:
            raise ReleaseError(
                f"'{live}' is the oldest release", where=str(self.root), remedy="There is none to go back to."
            )
        self.point(older[-1])
        return older[-1]

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` releases and the live one; say which went. Raises `SearchError` where one
        cannot be taken from the server that its index lives in: the next prune tries again."""
        for leftover in self.root.glob(".pruned-*"):
            remove(leftover)  # a prune was killed here
        live = self.current()
        gone = [id for id in self.ids()[: -keep or None] if id != live]
        for id in gone:
            hidden = self.root / f".pruned-{id}"
            (self.root / id).rename(hidden)  # a half-removed release is never seen
            remove(hidden)
        return gone

    def _follow(self, id: str) -> None:
        hosted = hosted_index(self.root / id)
        try:
            if hosted is not None:
                hosted.went_live(self.root / id / INDEX)
        except SearchError as error:
            raise ReleaseError(
                f"'{id}' is live, but the alias of its index did not follow ({error})",
                where=str(self.root),
                remedy=f"`zhiyin rollback RECIPE --to {id}` tries again. The service does not need the alias.",
            ) from None


def hosted_index(folder: Path) -> HostedSpec | None:
    """The spec of a release's index, where that lives in a server. None for a release that cannot be read."""
    try:
        index = spec.used_build(read_manifest(folder)["index"], "zhiyin.indexes")
    except (ReleaseError, SpecError):
        return None
    return index if isinstance(index, HostedSpec) else None


def remove(folder: Path) -> None:
    """Remove a release that nobody can see any more, and what its index has on a server. Raises `SearchError`, and
    leaves the folder, while that server cannot be reached."""
    hosted = hosted_index(folder)
    if hosted is not None:
        hosted.retire(folder / INDEX)
    shutil.rmtree(folder)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _arrays(folder: Path) -> Arrays:
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
