"""EASE (Steck 2019): the linear item-item model with a zero diagonal, in closed form."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from zhiyin.baselines.histories import history_matrix, training_matrix
from zhiyin.baselines.neighbourhoods import nearest
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import SpecError

BLOCK = 2048
"""Rows that are copied at a time."""


@dataclass(frozen=True, slots=True)
class EASE:
    """B = I − P · diag(1 / P), P = (XᵀX + `penalty` · I)⁻¹, scores = history · B (equation 8 of the paper).

    The one matrix of items² floats must fit `memory_gb`.
    """

    penalty: float = 300.0
    memory_gb: float = 8.0

    def __post_init__(self) -> None:
        if self.penalty <= 0 or self.memory_gb <= 0:
            raise SpecError(f"penalty = {self.penalty}, memory_gb = {self.memory_gb}", expected="both above 0")

    def fit(self, data: Prepared, split: Split) -> "EASEScorer":
        """Raises `SpecError` where items² floats need more than `memory_gb`."""
        size = len(data.items)
        needed = 4 * size**2 / 1e9
        if needed > self.memory_gb:
            raise SpecError(
                f"{size:,} items need a matrix of {size:,}² floats, {needed:.1f} GB",
                where="EASE",
                expected=f"at most memory_gb = {self.memory_gb:g}",
                remedy="Raise memory_gb where the machine has it, or use ItemKNN, whose memory is linear.",
            )
        matrix = training_matrix(data, split)
        gram = np.zeros((size, size), np.float32)
        transposed = matrix.T.tocsr()
        for start in range(0, size, BLOCK):
            gram[start : start + BLOCK] = (transposed[start : start + BLOCK] @ matrix).toarray()
        gram[np.diag_indices(size)] += self.penalty
        weights = inverted(gram)
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0)
        return EASEScorer(data, weights)


def inverted(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of a symmetric positive definite matrix [m, m], in its own memory (Cholesky)."""
    factor, failed = lapack.spotrf(matrix.T, lower=1, overwrite_a=1, clean=0)
    inverse, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise SpecError("XᵀX + penalty · I is singular in float32", where="EASE", remedy="Raise the penalty.")
    upper: NDArray[np.float32] = inverse.T
    for start in range(0, len(upper), BLOCK):
        stop = start + BLOCK
        upper[stop:, start:stop] = upper[start:stop, stop:].T
        corner = upper[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
    return upper


class EASEScorer:
    """The sum of the weights of a history's distinct items."""

    def __init__(self, data: Prepared, weights: NDArray[np.float32]) -> None:
        self._data, self._weights = data, weights

    def scores(self, events: Events) -> Tensor:
        return torch.from_numpy(history_matrix(self._data.events, events, len(self._data.items)) @ self._weights)

    def neighbours(self, keep: int) -> dict[str, NDArray[Any]]:
        blocks = (self._weights[start : start + BLOCK] for start in range(0, len(self._weights), BLOCK))
        found = sparse.vstack([sparse.csr_matrix(_largest(block, keep)) for block in blocks]).tocsr()
        return {**nearest(found, keep), "half_life": np.zeros(1)}


def _largest(block: NDArray[np.float32], keep: int) -> NDArray[np.float32]:
    """The block [b, m] with nothing below the `keep`-th largest of each row, and nothing below 0."""
    if keep >= block.shape[1]:
        return np.maximum(block, 0)
    least = np.partition(block, -keep, axis=1)[:, -keep, None]
    return np.where(block >= np.maximum(least, 0), block, np.float32(0))


EXAMPLES = (EASE(penalty=50.0),)
