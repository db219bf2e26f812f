"""External ids ↔ rows. A memory-mapped hash index: opening one costs nothing, a look-up touches a few pages."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.errors import DataError

Rows = NDArray[np.int32]
"""Positions in one catalogue (or one user table). Never an external id."""

UNKNOWN = -1
"""Padding, an unknown item, a missing hit. No real row is ever reserved for that."""


class Vocabulary:
    """External ids (strings) ↔ rows 0 … len-1, in the order they were given."""

    __slots__ = ("_bytes", "_hashes", "_offsets", "_order")

    def __init__(
        self,
        utf8: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        order: Rows,
    ) -> None:
        """`utf8[offsets[r]:offsets[r + 1]]` is row r's id; `hashes` is sorted, and `order` says whose hash each is."""
        self._bytes, self._offsets, self._hashes, self._order = utf8, offsets, hashes, order

    @classmethod
    def of(cls, ids: Iterable[str]) -> Self:
        """The vocabulary of these ids, row i the i-th. Raises `DataError` for an id that occurs twice."""
        encoded = [one.encode() for one in ids]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(one) for one in encoded], out=offsets[1:])
        hashes = _hashes(encoded)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        vocabulary = cls(np.frombuffer(b"".join(encoded), np.uint8), offsets, hashes[order], order)
        vocabulary._refuse_duplicates()
        return vocabulary

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __contains__(self, one: object) -> bool:
        return isinstance(one, str) and bool(self.rows([one])[0] != UNKNOWN)

    def rows(self, ids: Sequence[str]) -> Rows:
        """[n] the row of each id, `UNKNOWN` for an id that is not here."""
        encoded = [one.encode(errors="surrogatepass") for one in ids]
        wanted = _hashes(encoded)
        found = np.full(len(encoded), UNKNOWN, np.int32)
        if not len(self):
            return found
        first = np.searchsorted(self._hashes, wanted)
        for i in np.flatnonzero(first < len(self)):
            at = int(first[i])
            while at < len(self) and self._hashes[at] == wanted[i]:
                row = int(self._order[at])
                if self._id_bytes(row) == encoded[i]:
                    found[i] = row
                    break
                at += 1
        return found

    def ids(self, rows: Iterable[int] | Rows | None = None) -> list[str]:
        """The external id of each row; of all, in order, when none are named. `IndexError` for a row that is none."""
        if rows is None:
            rows = range(len(self))
        found = []
        for row in rows:
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} is not in a vocabulary of {len(self)} ids")
            found.append(self._id_bytes(int(row)).decode())
        return found

    def save(self, folder: Path) -> None:
        """Write `folder`, which must not exist."""
        folder.mkdir()
        np.save(folder / "utf8.npy", self._bytes)
        np.save(folder / "offsets.npy", self._offsets)
        np.save(folder / "hashes.npy", self._hashes)
        np.save(folder / "order.npy", self._order)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The vocabulary saved in `folder`, memory-mapped."""
        parts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("utf8", "offsets", "hashes", "order")]
        return cls(*parts)

    def _id_bytes(self, row: int) -> bytes:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def _refuse_duplicates(self) -> None:
        for at in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]):
            one, two = (self._id_bytes(int(self._order[at + i])) for i in (0, 1))
            if one == two:
                raise DataError(f"the id {one.decode()!r} occurs twice", expected="ids that are unique")


def _hashes(encoded: Sequence[bytes]) -> NDArray[np.uint64]:
    joined = b"".join(blake2b(one, digest_size=8).digest() for one in encoded)
    return np.frombuffer(joined, np.uint64)
