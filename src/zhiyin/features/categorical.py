"""A categorical feature: one of a set of values learned from the training rows."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, SpecError
from zhiyin.features.base import Codes


@dataclass(frozen=True)
class Categorical:
    """Values by name, most frequent first; a value seen fewer than `at_least` times, or never, is `UNKNOWN`.

    Numbers are told apart by how they print without a trailing `.0`: 7, 7.0 and "7" are one value, so that the JSON of
    a request and the column of a file agree.
    """

    name: str
    column: str = ""
    dim: int = 8
    at_least: int = 1
    values: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.dim < 1 or self.at_least < 1:
            raise SpecError(f"dim = {self.dim}, at_least = {self.at_least}", expected="both at least 1")

    @property
    def encoding(self) -> Codes:
        return Codes(len(self.values), self.dim)

    def fit(self, values: Column) -> Self:
        """Raises `DataError` for lists."""
        refuse_lists(values, self.name)
        counts = Counter(word(v) for v in values if not missing(v))
        kept = sorted((v for v, c in counts.items() if c >= self.at_least), key=lambda v: (-counts[v], v))
        return type(self)(self.name, self.column, self.dim, self.at_least, tuple(kept))

    def encode(self, values: Column) -> NDArray[np.int32]:
        """[n] codes."""
        codes = self._codes
        found = (UNKNOWN if missing(v) else codes.get(word(v), UNKNOWN) for v in values)
        return np.fromiter(found, np.int32, len(values))

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values)}


def word(value: object) -> str:
    """How a value is told from others: its text; a number without a trailing `.0`, a fraction as its nearest float32,
    so that a column of float32 and the JSON of the same number agree."""
    if isinstance(value, str):
        return value
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else str(np.float32(value))
    return str(value)


def missing(value: object) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def refuse_lists(values: Column, name: str) -> None:
    """Raises `DataError` where a row holds several values."""
    held = [0] if values.ndim > 1 and len(values) else []
    if values.dtype == object:
        held = [row for row, value in enumerate(values) if isinstance(value, list | np.ndarray)]
    if held:
        raise DataError(
            f"row {held[0]} holds a list",
            where=f"feature '{name}'",
            expected="one value a row",
            remedy="Make it a bag:Bag, or a vector:Vector if it holds numbers.",
        )


EXAMPLES = (Categorical("country", dim=4),)
