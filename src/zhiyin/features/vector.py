"""A pretrained vector: what another model already knows of a title, a cover, a user."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.errors import DataError, SpecError
from zhiyin.features.base import Values
from zhiyin.features.categorical import missing


@dataclass(frozen=True, slots=True)
class Vector:
    """`width` numbers a row; `normalize` brings each to unit length. A missing vector, one of another width, or one
    that is not finite, is all zeros."""

    name: str
    column: str = ""
    width: int = 64
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.width < 1:
            raise SpecError(f"{self.width}", where=".width", expected="at least 1")

    @property
    def encoding(self) -> Values:
        return Values(self.width)

    def fit(self, values: Column) -> Self:
        """Raises `DataError` for what is no vector, one of another width, or one that is not finite."""
        for row, value in enumerate(values):
            if not missing(value) and self._vector(value) is None:
                width = len(value) if isinstance(value, list | np.ndarray) else 0
                other = width not in (0, self.width)
                raise DataError(
                    f"row {row} holds {f'{width} numbers' if other else repr(value)}",
                    where=f"feature '{self.name}'",
                    expected=f"{self.width} finite numbers",
                    remedy=f"Set width = {width}." if other else "Correct the row, or leave its value empty.",
                )
        return self

    def encode(self, values: Column) -> NDArray[np.float32]:
        """[n, width]."""
        vectors = np.zeros((len(values), self.width), np.float32)
        for row, value in enumerate(values):
            vector = self._vector(value)
            if vector is not None:
                vectors[row] = vector
        if self.normalize:
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
        return vectors

    def _vector(self, value: object) -> NDArray[np.float32] | None:
        try:
            with np.errstate(over="ignore"):
                vector = np.asarray(value, np.float32)
        except (TypeError, ValueError, OverflowError):
            return None
        return vector if vector.shape == (self.width,) and np.isfinite(vector).all() else None


EXAMPLES = (Vector("cover", width=3), Vector("text", width=3, normalize=True))
