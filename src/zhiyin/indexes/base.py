"""What an index is: vectors in, the k largest inner products out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN, Rows

Vectors = NDArray[np.float32]
"""[n, d] one vector a row."""

Allowed = NDArray[np.bool_]
"""[m] which rows may be found."""


@dataclass(frozen=True, slots=True)
class Hits:
    """`rows`, `scores` [n, k]: inner products, descending; `UNKNOWN` and -inf after the last hit.

    Equal scores are ordered by row where the backend is exact.
    """

    rows: Rows
    scores: Vectors

    @classmethod
    def none(cls, queries: int, k: int) -> "Hits":
        """[queries, k] with nothing found."""
        return cls(np.full((queries, k), UNKNOWN, np.int32), np.full((queries, k), -np.inf, np.float32))


class Searchable(Protocol):
    """Vectors that can be searched, from many threads at once."""

    def __len__(self) -> int: ...

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        """The k rows of largest inner product with each query, only `allowed` ones.

        k may exceed the index: what is missing is `UNKNOWN`. Raises `SearchError` for k < 1, for queries of another
        width, for a query that is not finite, and for `allowed` of another length.
        """
        ...


class Index(Searchable, Protocol):
    """What a spec builds."""

    def save(self, path: Path) -> None:
        """Write one file, which must not exist."""
        ...


@runtime_checkable
class IndexSpec(Protocol):
    """A backend and its parameters."""

    def build(self, vectors: Vectors) -> Index:
        """Raises `SearchError` for vectors that are not finite float32 [m, d], m ≥ 1."""
        ...

    def load(self, path: Path, vectors: Vectors) -> Index:
        """The index saved at `path`. `vectors` are the (memory-mapped) vectors it was built from: a backend that keeps
        its own copy may ignore them. Raises `SearchError` for a file that is not its own."""
        ...


@runtime_checkable
class HostedSpec(IndexSpec, Protocol):
    """A backend whose index lives in a server; the file that a release has only names it."""

    def went_live(self, path: Path) -> None:
        """The release whose file this is was made live. May be told again. Raises `SearchError`."""
        ...

    def retire(self, path: Path) -> None:
        """The release whose file this is goes: take away what it has on the server, and nothing else. Nothing where
        that is gone already. Raises `SearchError`."""
        ...
