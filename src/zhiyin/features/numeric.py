"""Numbers: standardised values, or quantile buckets with a learned vector each."""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, SpecError
from zhiyin.features.base import Codes, Values
from zhiyin.features.categorical import missing, refuse_lists


@dataclass(frozen=True, slots=True)
class Numeric:
    """One number. `scale`: "standard" subtracts the mean and divides by the deviation; "log" takes log(1 + x) first,
    for counts and prices; "none" leaves it. What is missing, or no finite float32, is 0: after scaling, the mean."""

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
        alike = numbers.min() == numbers.max()  # whose deviation may come out as 1e-17
        mean, deviation = float(numbers.mean()), 1.0 if alike else float(numbers.std())
        return type(self)(self.name, self.column, self.scale, mean, deviation)

    def encode(self, values: Column) -> NDArray[np.float32]:
        """[n, 1]."""
        numbers = as_numbers(values)
        if self.scale == "log":
            numbers = np.log1p(np.maximum(numbers, 0))
        with np.errstate(over="ignore"):
            scaled = ((numbers - self.mean) / self.deviation).astype(np.float32)
        return np.where(np.isfinite(scaled), scaled, np.float32(0))[:, None]


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
        shares = np.arange(1, self.buckets) / self.buckets
        inner = np.unique(np.quantile(numbers, shares, method="higher"))  # numbers of the column, not between them
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
    """The numbers that are there. Raises `DataError` for lists, text, infinity and what no float32 holds."""
    refuse_lists(values, name)
    numbers = as_numbers(values)
    held = np.abs(numbers) <= np.finfo(np.float32).max
    for value, number in zip(values[~held].tolist(), numbers[~held], strict=True):
        if not missing(value):
            kind = "no number" if np.isnan(number) else "infinite" if np.isinf(number) else "too large"
            raise DataError(
                f"{value!r} is {kind}",
                where=f"feature '{name}'",
                expected="finite numbers, or missing ones",
                remedy="Clean the column, or make it a categorical:Categorical.",
            )
    return numbers[held]


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


EXAMPLES = (Numeric("age"), Numeric("price", scale="log"), Bucketed("income", buckets=4, dim=4))
