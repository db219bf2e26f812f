"""Numbers: standardised values, or quantile buckets with a learned vector each."""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, SpecError
from zhiyin.features.base import Codes, Values


@dataclass(frozen=True, slots=True)
class Numeric:
    """One number. `scale`: "standard" subtracts the mean and divides by the deviation; "log" takes log(1 + x) first,
    for counts and prices; "none" leaves it. What is missing, or no finite number, is 0: after scaling, the mean."""

    name: str
    column: str = ""
    scale: Literal["standard", "log", "none"] = "standard"
    mean: float = field(default=0.0, repr=False)
    deviation: float = field(default=1.0, repr=False)

    @property
    def encoding(self) -> Values:
        return Values(1)

    def fit(self, values: Column) -> Self:
        """Raises `DataError` for text, for infinity, and for a negative number under "log"."""
        numbers = finite_numbers(values, self.name)
        if self.scale == "log" and (numbers < 0).any():
            raise DataError(
                f"{numbers[numbers < 0][0]:g} is negative",
                where=f"feature '{self.name}'",
                expected='numbers ≥ 0 for scale = "log"',
                remedy='Use scale = "standard".',
            )
        if self.scale == "none" or not len(numbers):
            return self
        numbers = np.log1p(numbers) if self.scale == "log" else numbers
        mean, deviation = float(numbers.mean()), float(numbers.std()) or 1.0
        return type(self)(self.name, self.column, self.scale, mean, deviation)

    def encode(self, values: Column) -> NDArray[np.float32]:
        """[n, 1]."""
        numbers = as_numbers(values)
        if self.scale == "log":
            numbers = np.log1p(np.maximum(numbers, 0))
        scaled = (numbers - self.mean) / self.deviation
        held = np.abs(scaled) <= np.finfo(np.float32).max  # and not so far out that float32 has no number for it
        return np.where(held, scaled, 0).astype(np.float32)[:, None]


@dataclass(frozen=True, slots=True)
class Bucketed:
    """A number by the quantile it falls in: `buckets` of about equally many training rows, each with a vector of `dim`
    numbers. What is missing, or no finite number, is `UNKNOWN`."""

    name: str
    column: str = ""
    buckets: int = 10
    dim: int = 8
    bounds: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.buckets < 2 or self.dim < 1:
            raise SpecError(f"buckets = {self.buckets}, dim = {self.dim}", expected="buckets ≥ 2 and dim ≥ 1")

    @property
    def encoding(self) -> Codes:
        return Codes(len(self.bounds) + 1, self.dim)

    def fit(self, values: Column) -> Self:
        """Raises `DataError` for text and for infinity."""
        numbers = finite_numbers(values, self.name)
        if not len(numbers):
            return self
        inner = np.unique(np.quantile(numbers, np.linspace(0, 1, self.buckets + 1)[1:-1]))
        return type(self)(self.name, self.column, self.buckets, self.dim, tuple(inner.tolist()))

    def encode(self, values: Column) -> NDArray[np.int32]:
        """[n] codes: how many bounds are at or below the number."""
        numbers = as_numbers(values)
        codes = np.searchsorted(np.asarray(self.bounds), numbers, side="right")
        return np.where(np.isfinite(numbers), codes, UNKNOWN).astype(np.int32)


def as_numbers(values: Column) -> NDArray[np.float64]:
    """[n] the values as numbers; NaN for what is missing or none."""
    if values.dtype != object:
        try:
            return values.astype(np.float64)
        except ValueError:
            pass
    return np.fromiter((_number(value) for value in values), np.float64, len(values))


def finite_numbers(values: Column, name: str) -> NDArray[np.float64]:
    """The numbers that are there. Raises `DataError` for text and for infinity."""
    numbers = as_numbers(values)
    for value, number in zip(values[~np.isfinite(numbers)], numbers[~np.isfinite(numbers)], strict=True):
        if value is not None and value == value:
            raise DataError(
                f"{value!r} is {'infinite' if np.isinf(number) else 'no number'}",
                where=f"feature '{name}'",
                expected="finite numbers, or missing ones",
                remedy="Clean the column, or make it a categorical:Categorical.",
            )
    return numbers[np.isfinite(numbers)]


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


EXAMPLES = (Numeric("age"), Numeric("price", scale="log"), Bucketed("income", buckets=4, dim=4))
