"""ALS for implicit feedback (Hu, Koren & Volinsky 2008): a weighted factorisation, each half solved exactly in turn."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from zhiyin.baselines.histories import history_matrix, training_matrix
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import SpecError

BLOCK_FLOATS = 1 << 23
"""About how many numbers of gathered factors are held at once."""


@dataclass(frozen=True, slots=True)
class ALS:
    """min Σ c (p − xᵀy)² + `penalty` · (Σ ‖x‖² + Σ ‖y‖²), p = 1 and c = 1 + `alpha` where a user met an item, p = 0 and
    c = 1 elsewhere; `sweeps` over users and items."""

    dim: int = 64
    alpha: float = 3.0
    penalty: float = 10.0
    sweeps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or self.sweeps < 1 or self.alpha <= 0 or self.penalty <= 0:
            raise SpecError(
                f"dim = {self.dim}, sweeps = {self.sweeps}, alpha = {self.alpha}, penalty = {self.penalty}",
                expected="dim ≥ 1, sweeps ≥ 1, alpha > 0, penalty > 0",
            )

    def fit(self, data: Prepared, split: Split) -> "ALSScorer":
        matrix = training_matrix(data, split)
        generator = torch.Generator().manual_seed(self.seed)
        items = torch.randn(matrix.shape[1], self.dim, generator=generator) * 0.01
        transposed = matrix.T.tocsr()
        for _ in range(self.sweeps):
            users = solved(matrix, items, self.alpha, self.penalty)
            items = solved(transposed, users, self.alpha, self.penalty)
        return ALSScorer(data, items, self.alpha, self.penalty)


def solved(matrix: sparse.csr_matrix, factors: Tensor, alpha: float, penalty: float) -> Tensor:
    """float32 [n, d] the factors of the rows of matrix [n, m] that fit factors [m, d] best (equation 4 of the paper):
    x = (YᵀY + alpha · Y_rᵀY_r + penalty · I)⁻¹ (1 + alpha) Σ Y_r, Y_r the factors of what row r met."""
    dim = factors.shape[1]
    gram = factors.T @ factors + penalty * torch.eye(dim)
    padded = torch.cat([factors, torch.zeros(1, dim)])
    lengths = np.diff(matrix.indptr)
    order = np.argsort(lengths, kind="stable")
    found = torch.zeros(matrix.shape[0], dim)
    start = int(np.searchsorted(lengths[order], 1))  # who met nothing stays at zero
    while start < len(order):
        stop = _stop(lengths[order], start, dim)
        rows = order[start:stop]
        met = padded[torch.from_numpy(_padded(matrix, rows, int(lengths[rows[-1]]), len(factors)))]
        left = torch.baddbmm(gram.expand(len(rows), -1, -1), met.mT, met, alpha=alpha)
        right = (1 + alpha) * met.sum(1)
        found[torch.from_numpy(rows)] = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(left))[..., 0]
        start = stop
    return found


def _stop(lengths: np.ndarray, start: int, dim: int) -> int:
    """Where a block that begins at `start` of ascending `lengths` ends: padded to its longest row it fits."""
    most = start + max(1, BLOCK_FLOATS // dim**2)
    longest = lengths[start:most]
    fits = (np.arange(len(longest)) + 1) * longest * dim <= BLOCK_FLOATS
    return start + max(1, int(fits.sum()))


def _padded(matrix: sparse.csr_matrix, rows: np.ndarray, width: int, nothing: int) -> np.ndarray:
    """int64 [rows, width] what each row met; `nothing` on the right."""
    columns = np.arange(width)
    places = matrix.indptr[rows][:, None] + columns
    real = columns < np.diff(matrix.indptr)[rows][:, None]
    return np.where(real, matrix.indices[np.where(real, places, 0)], nothing).astype(np.int64)


class ALSScorer:
    """A history's factors, solved from its items alone, against the items' factors."""

    def __init__(self, data: Prepared, items: Tensor, alpha: float, penalty: float) -> None:
        self._data, self.items, self._alpha, self._penalty = data, items, alpha, penalty

    def users(self, events: Events) -> Tensor:
        history = history_matrix(self._data.events, events, len(self.items))
        return solved(history, self.items, self._alpha, self._penalty)[:, None]

    def scores(self, events: Events) -> Tensor:
        return self.users(events)[:, 0] @ self.items.T


EXAMPLES = (ALS(dim=8, sweeps=4),)
