"""A bag: several values at once (genres, tags), in no order."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.features.base import Codes
from zhiyin.features.categorical import missing, word


@dataclass(frozen=True)
class Bag:
    """A list of values, or text that `separator` parts. At most `length` of them, the first ones; a value twice in one
    bag counts once; one seen fewer than `at_least` times in training, or never, is left out."""

    name: str
    column: str = ""
    dim: int = 8
    length: int = 8
    separator: str = "|"
    at_least: int = 1
    values: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.dim < 1 or self.length < 1 or self.at_least < 1 or not self.separator:
            raise SpecError(
                f"dim = {self.dim}, length = {self.length}, at_least = {self.at_least}, separator = {self.separator!r}",
                expected="numbers of at least 1 and a separator",
            )

    @property
    def encoding(self) -> Codes:
        return Codes(len(self.values), self.dim, bag=True)

    def fit(self, values: Column) -> Self:
        counts = Counter(one for value in values for one in self._words(value))
        kept = sorted((v for v, c in counts.items() if c >= self.at_least), key=lambda v: (-counts[v], v))
        return type(self)(self.name, self.column, self.dim, self.length, self.separator, self.at_least, tuple(kept))

    def encode(self, values: Column) -> NDArray[np.int32]:
        """[n, length] codes, padded on the right."""
        codes = np.full((len(values), self.length), UNKNOWN, np.int32)
        known = self._codes
        for row, value in enumerate(values):
            found = [known[one] for one in self._words(value) if one in known][: self.length]
            codes[row, : len(found)] = found
        return codes

    def _words(self, value: object) -> list[str]:
        if isinstance(value, str):
            parts: Iterable[object] = (part.strip() for part in value.split(self.separator))
        elif isinstance(value, list | tuple | np.ndarray):
            parts = value
        else:
            parts = (value,)
        return [one for one in dict.fromkeys(word(part) for part in parts if not missing(part)) if one]

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values)}


EXAMPLES = (Bag("genres", dim=4, length=3),)
