"""External ids ↔ rows. A memory-mapped hash index: opening one costs nothing, a look-up touches a few pages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b, sha256
from itertools import pairwise
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zhiyin.data import murmur
from zhiyin.errors import DataError

Rows = NDArray[np.int32]
"""Positions in one catalogue (or one user table). Never an external id."""

UNKNOWN = -1
"""Padding, an unknown item, a missing hit. No real row is ever reserved for that."""

_CHUNK = 1 << 16


class Ids(Protocol):
    """External ids ↔ rows, as far as the online path asks."""

    def __len__(self) -> int: ...

    def __contains__(self, one: object) -> bool: ...

    def rows(self, ids: Sequence[str]) -> Rows:
        """[n] the row of each id, `UNKNOWN` for an id that is not here."""
        ...

    def ids(self, rows: Iterable[int] | Rows | None = None) -> list[str]:
        """The external id of each row; of all, in order, when none are named. `IndexError` for a row that is none."""
        ...


class Vocabulary:
    """External ids (strings) ↔ rows 0 … len-1, in the order they were given."""

    __slots__ = ("_bytes", "_hashes", "_kind", "_offsets", "_order")

    def __init__(
        self,
        utf8: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        order: Rows,
        kind: str = "murmur",
    ) -> None:
        """`utf8[offsets[r]:offsets[r + 1]]` is row r's id; `hashes` is sorted, and `order` says whose hash each is.
        `kind`: one of `HASHES`."""
        self._bytes, self._offsets, self._hashes, self._order, self._kind = utf8, offsets, hashes, order, kind

    @classmethod
    def of(cls, ids: Iterable[str]) -> Self:
        """The vocabulary of these ids, row i the i-th. Raises `DataError` for an id that occurs twice."""
        return cls._built(*_joined([one.encode() for one in ids]))

    @classmethod
    def of_arrow(cls, ids: pa.ChunkedArray) -> Self:
        """The same of an Arrow column of strings, none missing: no Python per id."""
        return cls._built(*_buffers(ids))

    def extended(self, ids: pa.ChunkedArray) -> Self:
        """This vocabulary with further ids after its own, whose rows stay. Raises `DataError` for an id that is here
        already, or twice among them."""
        utf8, offsets = _buffers(ids)
        return self._built(
            np.concatenate([self._bytes, utf8]), np.concatenate([self._offsets, self._offsets[-1] + offsets[1:]])
        )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __contains__(self, one: object) -> bool:
        return isinstance(one, str) and bool(self.rows([one])[0] != UNKNOWN)

    def rows(self, ids: Sequence[str]) -> Rows:
        """[n] the row of each id, `UNKNOWN` for an id that is not here."""
        found = np.full(len(ids), UNKNOWN, np.int32)
        for start in range(0, len(ids) if len(self) else 0, _CHUNK):
            encoded = [one.encode(errors="surrogatepass") for one in ids[start : start + _CHUNK]]
            found[start : start + _CHUNK] = self._rows(*_joined(encoded))
        return found

    def ids(self, rows: Iterable[int] | Rows | None = None) -> list[str]:
        """The external id of each row; of all, in order, when none are named. `IndexError` for a row that is none."""
        if rows is None:
            return list(self.arrow().to_pylist())
        wanted = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64)
        if len(wrong := wanted[(wanted < 0) | (wanted >= len(self))]):
            raise IndexError(f"row {wrong[0]} is not in a vocabulary of {len(self)} ids")
        found: list[str] = self.arrow().take(pa.array(wanted)).to_numpy(zero_copy_only=False).tolist()
        return found

    def arrow(self) -> pa.LargeStringArray:
        """All ids in order as an Arrow array, not copied."""
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(self._offsets), pa.py_buffer(self._bytes))

    def digest(self) -> str:
        """The same for the same ids in the same order."""
        digest = sha256(self._offsets.data)
        digest.update(self._bytes.data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `folder`, which must not exist. The name of the file of hashes says how they are made."""
        folder.mkdir()
        np.save(folder / "utf8.npy", self._bytes)
        np.save(folder / "offsets.npy", self._offsets)
        np.save(folder / f"{self._kind}.npy", self._hashes)
        np.save(folder / "order.npy", self._order)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The vocabulary saved in `folder`, memory-mapped. Raises `DataError` for hashes of a kind unknown here."""
        kind = next((kind for kind in HASHES if (folder / f"{kind}.npy").exists()), "")
        if not kind:
            raise DataError(
                "the ids are hashed in no way known here",
                where=str(folder),
                expected=" or ".join(f"{kind}.npy" for kind in HASHES),
                remedy="Upgrade zhiyin, or write the folder again.",
            )
        utf8, offsets, hashes, order = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("utf8", "offsets", kind, "order")
        )
        return cls(utf8, offsets, hashes, order, kind)

    @classmethod
    def _built(cls, utf8: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Self:
        hashes = murmur.hashes(utf8, offsets)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        vocabulary = cls(utf8, offsets, hashes[order], order)
        vocabulary._refuse_duplicates()
        return vocabulary

    def _rows(self, utf8: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Rows:
        wanted = HASHES[self._kind](utf8, offsets)
        at = np.searchsorted(self._hashes, wanted)
        found = np.full(len(wanted), UNKNOWN, np.int32)
        asked = np.flatnonzero(at < len(self))
        while len(asked := asked[self._hashes[at[asked]] == wanted[asked]]):
            rows = self._order[at[asked]]
            same = self._equal(rows, utf8, offsets[asked], offsets[asked + 1])
            found[asked[same]] = rows[same]
            asked = asked[~same]
            at[asked] += 1
            asked = asked[at[asked] < len(self)]
        return found

    def _equal(
        self, rows: Rows, utf8: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """[n] whether row i's id is `utf8[starts[i]:stops[i]]`."""
        firsts, sizes = self._offsets[rows], stops - starts
        equal = np.asarray(self._offsets[rows + 1] - firsts == sizes)
        sizes = np.where(equal, sizes, 0)
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1])
        shifts = np.repeat([firsts - (ends - sizes), starts - (ends - sizes)], sizes, axis=1)
        odd = np.flatnonzero(self._bytes[places + shifts[0]] != utf8[places + shifts[1]])
        equal[np.searchsorted(ends, odd, side="right")] = False
        return equal

    def _id_bytes(self, row: int) -> bytes:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def _refuse_duplicates(self) -> None:
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        seen = set()
        for row in np.unique(np.concatenate([self._order[same], self._order[same + 1]])):
            one = self._id_bytes(int(row))
            if one in seen:
                raise DataError(f"the id {one.decode()!r} occurs twice", expected="ids that are unique")
            seen.add(one)


class Grown:
    """A vocabulary, and ids that came after, whose rows follow its own: as many as there were when this was made.

    `later` and `names` may grow on, at their end, and only there: what is here never changes.
    """

    __slots__ = ("_base", "_first", "_later", "_names", "_size")

    def __init__(self, base: Ids, later: Mapping[str, int], names: Sequence[str]) -> None:
        """`later`: the row of each id that came after; `names[i]`: the id of the i-th of them."""
        self._base, self._first, self._size = base, len(base), len(base) + len(names)
        self._later, self._names = later, names

    def __len__(self) -> int:
        return self._size

    def __contains__(self, one: object) -> bool:
        return isinstance(one, str) and bool(self.rows([one])[0] != UNKNOWN)

    def rows(self, ids: Sequence[str]) -> Rows:
        """[n] the row of each id, `UNKNOWN` for an id that is not here."""
        found = self._base.rows(ids)
        for at in np.flatnonzero(found == UNKNOWN).tolist():
            row = self._later.get(ids[at], UNKNOWN)
            found[at] = row if row < self._size else UNKNOWN
        return found

    def ids(self, rows: Iterable[int] | Rows | None = None) -> list[str]:
        """The external id of each row; of all, in order, when none are named. `IndexError` for a row that is none."""
        if rows is None:
            return [*self._base.ids(), *self._names[: self._size - self._first]]
        wanted = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64)
        if len(wrong := wanted[(wanted < 0) | (wanted >= self._size)]):
            raise IndexError(f"row {wrong[0]} is not in a vocabulary of {self._size} ids")
        own = iter(self._base.ids(wanted[wanted < self._first]))
        return [next(own) if row < self._first else self._names[row - self._first] for row in wanted.tolist()]


def _joined(encoded: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def _buffers(ids: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    strings = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in ids.chunks or [pa.array([], pa.string())]])
    _, offsets, utf8 = strings.buffers()
    ends = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return np.frombuffer(utf8 or b"", np.uint8)[ends[0] : ends[-1]], ends - ends[0]


def _blake2b(utf8: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    joined = b"".join(blake2b(utf8[start:stop].tobytes(), digest_size=8).digest() for start, stop in pairwise(offsets))
    return np.frombuffer(joined, "<u8")


HASHES: dict[str, Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint64]]] = {
    "murmur": murmur.hashes,
    "hashes": _blake2b,
}
"""How ids may be hashed, by the name of the file that holds the hashes; "hashes" is that of the first format."""
