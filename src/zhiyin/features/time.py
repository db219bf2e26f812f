"""Time: the hour and the weekday of a request, and the age of a training example."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.features.base import Codes, Values
from zhiyin.features.numeric import as_numbers, finite_numbers

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Hour:
    """The hour of the day, 0 … 23, of a time in milliseconds since 1970, `utc_offset` hours east of Greenwich."""

    name: str = "hour"
    column: str = "time"
    dim: int = 4
    utc_offset: float = 0.0

    def __post_init__(self) -> None:
        _check(self.dim, self.utc_offset)

    @property
    def encoding(self) -> Codes:
        return Codes(24, self.dim)

    def fit(self, values: Column) -> Self:
        return self

    def encode(self, values: Column) -> NDArray[np.int32]:
        """[n] codes."""
        return _codes(values, self.utc_offset, lambda hours: hours % 24)


@dataclass(frozen=True, slots=True)
class Weekday:
    """The day of the week, Monday 0 … Sunday 6, of a time in milliseconds since 1970, `utc_offset` hours east."""

    name: str = "weekday"
    column: str = "time"
    dim: int = 4
    utc_offset: float = 0.0

    def __post_init__(self) -> None:
        _check(self.dim, self.utc_offset)

    @property
    def encoding(self) -> Codes:
        return Codes(7, self.dim)

    def fit(self, values: Column) -> Self:
        return self

    def encode(self, values: Column) -> NDArray[np.int32]:
        """[n] codes."""
        return _codes(values, self.utc_offset, lambda hours: (hours // 24 + 3) % 7)  # 1970 began on a Thursday


@dataclass(frozen=True, slots=True)
class ExampleAge:
    """Covington et al. 2016, section 3.3: how old a training example is when training ends, so that the model learns
    popularity as it changes; every request has age 0. In units of the training span: [age, √age]."""

    name: str = "example_age"
    column: str = "age"
    span: float = field(default=1.0, repr=False)

    @property
    def encoding(self) -> Values:
        return Values(2)

    def fit(self, values: Column) -> Self:
        ages = finite_numbers(values, self.name)
        return type(self)(self.name, self.column, float(ages.max(initial=0)) or 1.0)

    def encode(self, values: Column) -> NDArray[np.float32]:
        """[n, 2]; zeros for age 0, and for what is missing or no finite float32."""
        ages = as_numbers(values) / self.span
        ages = np.where(np.abs(ages) <= np.finfo(np.float32).max, np.maximum(ages, 0), 0)
        return np.stack([ages, np.sqrt(ages)], axis=1).astype(np.float32)


def _codes(
    values: Column, utc_offset: float, of_hours: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> NDArray[np.int32]:
    times = as_numbers(values)
    known = np.abs(times) < 1e18  # neither missing nor infinite, and whole hours of it fit into int64
    hours = np.floor(np.where(known, times, 0) / HOUR_MS + utc_offset).astype(np.int64)
    return np.where(known, of_hours(hours), UNKNOWN).astype(np.int32)


def _check(dim: int, utc_offset: float) -> None:
    if dim < 1 or not -24 < utc_offset < 24:
        raise SpecError(f"dim = {dim}, utc_offset = {utc_offset}", expected="dim ≥ 1 and an offset within a day")


EXAMPLES = (Hour(), Weekday(utc_offset=8), ExampleAge())
