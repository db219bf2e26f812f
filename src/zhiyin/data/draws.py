"""What synthetic worlds are drawn with: Zipf popularities, features that mostly tell the truth, ids as Arrow."""

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from zhiyin.errors import SpecError

Probabilities = NDArray[np.float64]
"""Not negative, of sum 1 along the last axis."""

START = 1_700_000_000_000
"""When every world begins, in milliseconds since 1970."""

HOUR, DAY = 3_600_000, 86_400_000

COUNTRIES = ("cn", "fr", "br", "ke", "us", "in")
DEVICES = ("phone", "tablet", "tv")


def zipf(length: int, skew: float) -> Probabilities:
    """[length] probabilities proportional to rank^-skew."""
    weights = np.arange(1, length + 1, dtype=np.float64) ** -skew
    return np.asarray(weights / weights.sum())


def ids(letter: str, rows: NDArray[np.int64]) -> pa.Array:
    return pa.compute.binary_join_element_wise(letter, pa.compute.cast(pa.array(rows), pa.string()), "")


def mostly(values: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`values` mod `count` for 4 of 5, and any of `count` for the fifth."""
    return np.where(random.random(len(values)) < 0.8, values % count, random.integers(count, size=len(values)))


def refuse(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SpecError(f"{name} = {size}", where="a synthetic world", expected="at least 1")
