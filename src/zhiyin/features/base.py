"""What a feature is: a frozen dataclass that turns a column into codes or values, the same offline and online."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column

Encoded = NDArray[np.int32] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Codes:
    """`encode` gives int32 codes in 0 … cardinality-1, or `UNKNOWN`: [n], or [n, length] padded on the right for a bag.

    A model gives each code a vector of `dim` numbers, and `UNKNOWN` one of its own; a bag is the mean of its vectors.
    """

    cardinality: int
    dim: int
    bag: bool = False


@dataclass(frozen=True, slots=True)
class Values:
    """`encode` gives float32 [n, width]."""

    width: int


class Feature(Protocol):
    """One feature. `name` is unique in a schema; `column` is where its values stand (`name` when left empty)."""

    @property
    def name(self) -> str: ...

    @property
    def column(self) -> str: ...

    @property
    def encoding(self) -> Codes | Values:
        """What `encode` gives. Meaningful once fitted."""
        ...

    def fit(self, values: Column) -> Self:
        """The same feature with what it must know of its column: vocabulary, mean, … Training rows only.

        Raises `DataError` for a column it cannot read: the value, what was expected, the way out.
        """
        ...

    def encode(self, values: Column) -> Encoded:
        """Codes or values, as `encoding` says. A missing or unseen value never raises: it is `UNKNOWN`, or the mean."""
        ...
