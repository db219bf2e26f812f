"""What the indexes in a vector database share: a collection for each release, and an alias that follows the live one.

    index.bin            a receipt: which collection, how many rows, and a checksum of their vectors
    the collection       NAME_20260101_120000_3f2a9c1b: rows 0 … m−1, and a marker that says whose it is, and the same
    the alias NAME       the live release's collection, for whoever else wants to search it; a release never reads it

A collection is never written to once it is built. Only one whose marker says that it is ours is ever dropped: with the
release that has its receipt, or a day after a publish was killed before there was one.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zhiyin.data.vocabulary import Rows
from zhiyin.errors import SearchError, SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import foreign

NUMBERS_AT_ONCE = 1 << 18
"""Of the vectors, sent in one call: about 4 MB as JSON."""

ABANDONED = 86_400.0
"""Seconds after which a collection that no receipt was written for is nobody's: its publish was killed."""

Marker = Mapping[str, Any]
"""What a collection says of itself: plain enough for JSON."""


class Database(Protocol):
    """A vector database spoken to through its own client. Every call has a deadline, and raises `SearchError` in words
    when the database cannot be reached, refuses, or does not know the collection."""

    @property
    def place(self) -> str:
        """Which one, for people."""
        ...

    @property
    def kind(self) -> str:
        """One word, by which its receipts are told from another's."""
        ...

    @property
    def most(self) -> int:
        """Hits that a search may fetch."""
        ...

    def collections(self) -> list[str]: ...

    def marker(self, collection: str) -> Marker | None:
        """What it says of itself; nothing where it is not ours. None where there is no such collection."""
        ...

    def mark(self, collection: str, marker: Marker) -> None: ...

    def create(self, collection: str, dim: int, marker: Marker) -> None: ...

    def insert(self, collection: str, first: int, vectors: Vectors) -> None:
        """[n, d] are the vectors of rows `first` …"""
        ...

    def finish(self, collection: str, rows: int) -> None:
        """All rows are there: index them. Returns when it can be searched at full speed."""
        ...

    def ready(self, collection: str) -> None:
        """Returns when it can be searched: after a restart it may first have to be read into memory."""
        ...

    def count(self, collection: str) -> int: ...

    def search(self, collection: str, queries: Vectors, k: int) -> Rows:
        """[n, k] rows by descending inner product, `UNKNOWN` after the last."""
        ...

    def drop(self, collection: str) -> None: ...

    def aliased(self, alias: str) -> str:
        """The collection that an alias points to; "" where there is no such alias."""
        ...

    def point(self, alias: str, collection: str) -> None:
        """Make or move an alias, in one step."""
        ...

    def unpoint(self, alias: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a release keeps of its collection. `vectors`: their sha256."""

    collection: str
    rows: int
    dim: int
    vectors: str

    @classmethod
    def of(cls, collection: str, vectors: Vectors) -> "Receipt":
        return cls(collection, len(vectors), vectors.shape[1], _checksum(vectors))

    @classmethod
    def read(cls, path: Path, kind: str) -> "Receipt":
        """Raises `SearchError` for a file that is no receipt of this kind of database."""
        try:
            return cls(**json.loads(path.read_text())[kind])
        except (ValueError, KeyError, TypeError) as error:
            raise foreign(path, str(error)) from None

    def write(self, path: Path, kind: str) -> None:
        with path.open("x") as file:
            file.write(json.dumps({kind: asdict(self)}) + "\n")

    def check(self, database: Database) -> None:
        """Raises `SearchError` where the collection is missing, another release's, or of another size."""
        marker = database.marker(self.collection)
        if marker is None:
            raise gone(self.collection, database.place)
        if not self.is_of(marker):
            raise SearchError(f"the collection '{self.collection}' is not this release's", where=database.place)
        there = database.count(self.collection)
        if there != self.rows:
            raise SearchError(
                f"the collection '{self.collection}' has {there} rows",
                where=database.place,
                expected=f"{self.rows}",
                remedy="Something has changed it. Publish again, or roll back.",
            )

    def is_of(self, marker: Marker) -> bool:
        """Whether it is this receipt's collection that has this marker."""
        return all(marker.get(name) == value for name, value in asdict(self).items())


def check_access(token_env: str, token_file: Path | None, timeout: float, build_seconds: float) -> None:
    """Raises `SpecError` for a token from two places, and for deadlines that are none."""
    if token_env and token_file is not None:
        raise SpecError("a token from two places", where=".token_file", expected="token_env or this")
    if not (0 < timeout < 1e6 and 0 < build_seconds < 1e6):
        raise SpecError(f"timeout = {timeout}, build_seconds = {build_seconds}", expected="seconds")


def check_counts(spec: Any, *names: str) -> None:
    """Raises `SpecError` where one of these fields of a spec is below 1."""
    if min(getattr(spec, name) for name in names) < 1:
        raise SpecError(", ".join(f"{name} = {getattr(spec, name)}" for name in names), expected="each at least 1")


def build(database: Database, name: str, vectors: Vectors) -> Receipt:
    """Put vectors [m, d] into a new collection, a block at a time. What fails half-way is taken away again; what is not
    saved within a day may be.

    Raises `SearchError` where a collection that is not ours has the alias's name."""
    there = database.collections()
    if name in there:
        raise SearchError(
            f"a collection is called '{name}', as the alias should be",
            where=database.place,
            remedy="Give the index another name: [index] name = …",
        )
    _sweep(database, name, there)
    receipt = Receipt.of(f"{name}_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}_{os.urandom(4).hex()}", vectors)
    database.create(receipt.collection, receipt.dim, {"zhiyin": name, "begun": int(time.time()), **asdict(receipt)})
    try:
        step = max(1, NUMBERS_AT_ONCE // receipt.dim)
        for first in range(0, receipt.rows, step):
            database.insert(receipt.collection, first, vectors[first : first + step])
        database.finish(receipt.collection, receipt.rows)
        receipt.check(database)
    except BaseException:
        with suppress(SearchError):  # it is swept when another is built
            database.drop(receipt.collection)
        raise
    return receipt


def save(database: Database, receipt: Receipt, path: Path) -> None:
    """Write the receipt, and let the collection know that there is one."""
    receipt.write(path, database.kind)
    marker = database.marker(receipt.collection)
    if marker is None:
        raise gone(receipt.collection, database.place)
    database.mark(receipt.collection, {**marker, "saved": True})


def load(database: Database, path: Path, vectors: Vectors) -> Receipt:
    """The receipt of a release, whose collection is there and whole. Raises `SearchError` where it is not, and for a
    receipt of other vectors."""
    receipt = Receipt.read(path, database.kind)
    if (receipt.rows, receipt.dim) != vectors.shape:
        raise foreign(path, f"it is of {[receipt.rows, receipt.dim]}, the vectors are of {list(vectors.shape)}")
    if receipt.vectors != _checksum(vectors):
        raise foreign(path, "it is of other vectors")
    if database.marker(receipt.collection) is not None:
        database.ready(receipt.collection)
    receipt.check(database)
    return receipt


def went_live(database: Database, name: str, path: Path) -> None:
    """Let the alias follow. Raises `SearchError` where it points to a collection that is not ours: it stays there."""
    receipt, before = Receipt.read(path, database.kind), database.aliased(name)
    if before == receipt.collection:
        return
    if before and (database.marker(before) or {}).get("zhiyin") != name:
        raise SearchError(
            f"the alias '{name}' points to '{before}', which is not zhiyin's",
            where=database.place,
            remedy="Give the index another name: [index] name = …",
        )
    database.point(name, receipt.collection)


def retire(database: Database, name: str, path: Path) -> None:
    """Drop a release's collection, and the alias where it points to it. Nothing where it is gone already. Raises
    `SearchError` where the collection of that name is not this release's: it stays."""
    receipt = Receipt.read(path, database.kind)
    marker = database.marker(receipt.collection)
    if marker is None:
        return
    if not receipt.is_of(marker):
        raise SearchError(
            f"the collection '{receipt.collection}' is not this release's, and stays",
            where=database.place,
            remedy="Whoever made it may drop it.",
        )
    if database.aliased(name) == receipt.collection:
        database.unpoint(name)
    database.drop(receipt.collection)


def gone(collection: str, place: str) -> SearchError:
    """The error for a collection that is not there."""
    return SearchError(
        f"the collection '{collection}' is gone", where=place, remedy="Publish again, or roll back to another release."
    )


def check_name(name: str) -> None:
    """Raises `SpecError` for what cannot begin the name of a collection in every database."""
    if not name.isidentifier() or not name.isascii() or len(name) > 200:
        raise SpecError(f"{name!r}", where=".name", expected="letters, digits and _, not beginning with a digit")


def check_uri(uri: str) -> None:
    """Raises `SpecError` for a uri that is none, or that holds a password: it would stand in every release."""
    if not uri.startswith(("http://", "https://")) or "@" in uri:
        raise SpecError(
            repr(uri.rpartition("@")[2]),
            where=".uri",
            expected='"http://HOST:PORT", or https',
            remedy="A token belongs into token_env or token_file.",
        )


def token(environment: str, file: Path | None, place: str) -> str:
    """The token from an environment variable or a file; "" where neither is named. Raises `SearchError` where it is
    not there."""
    if environment and environment not in os.environ:
        raise SearchError(f"the environment variable {environment} is not set", where=place, remedy="Put the token in.")
    if file is None:
        return os.environ[environment] if environment else ""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise SearchError(f"the token file {file} cannot be read ({why})", where=place) from None


def _sweep(database: Database, name: str, there: list[str]) -> None:
    """Drop what a publish that was killed left behind."""
    for collection in there:
        if not collection.startswith(f"{name}_"):
            continue
        marker = database.marker(collection) or {}
        ours = marker.get("zhiyin") == name and marker.get("collection") == collection
        if ours and not marker.get("saved") and time.time() - marker.get("begun", np.inf) > ABANDONED:
            database.drop(collection)


def _checksum(vectors: Vectors) -> str:
    digest = hashlib.sha256()
    for first in range(0, len(vectors), 1 << 16):
        digest.update(np.ascontiguousarray(vectors[first : first + (1 << 16)]).data)
    return digest.hexdigest()
