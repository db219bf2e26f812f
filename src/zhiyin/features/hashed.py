"""A hashed feature: for value spaces too large, or too fresh, for a vocabulary."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.features.base import Codes
from zhiyin.features.categorical import missing, refuse_lists, word


@dataclass(frozen=True, slots=True)
class Hashed:
    """A value's code is its BLAKE2b hash modulo `buckets`: stable between processes and machines. Nothing is learned:
    a value never seen in training shares the vector of what fell into its bucket. A missing value is `UNKNOWN`."""

    name: str
    column: str = ""
    dim: int = 8
    buckets: int = 100_000

    def __post_init__(self) -> None:
        if self.dim < 1 or self.buckets < 2:
            raise SpecError(f"dim = {self.dim}, buckets = {self.buckets}", expected="dim ≥ 1 and buckets ≥ 2")

    @property
    def encoding(self) -> Codes:
        return Codes(self.buckets, self.dim)

    def fit(self, values: Column) -> Self:
        """Raises `DataError` for lists."""
        refuse_lists(values, self.name)
        return self

    def encode(self, values: Column) -> NDArray[np.int32]:
        """[n] codes."""
        return np.fromiter((self._code(value) for value in values), np.int32, len(values))

    def _code(self, value: object) -> int:
        if missing(value):
            return UNKNOWN
        text = word(value).encode(errors="surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8).digest()) % self.buckets


EXAMPLES = (Hashed("device", dim=4, buckets=50),)
