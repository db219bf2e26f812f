"""Item-kNN (Sarwar et al. 2001; shrinkage as in Bell & Koren 2007): items bought together are near each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhiyin.baselines.histories import history_matrix, training_matrix
from zhiyin.baselines.neighbourhoods import nearest
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.evaluation.best import Best, blocks

BLOCK_BYTES = 64 << 20
"""About how much memory the similarities take that are held at once before the largest are chosen."""


@dataclass(frozen=True, slots=True)
class ItemKNN:
    """sim(i, j) = users of both / (√(users of i · users of j) + `shrinkage`); the `neighbours` largest of each item are
    kept. An item `half_life` events back in a history weighs half as much as the newest; 0: all weigh the same."""

    neighbours: int = 100
    shrinkage: float = 10.0
    half_life: float = 0.0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.shrinkage < 0 or self.half_life < 0:
            raise SpecError(
                f"neighbours = {self.neighbours}, shrinkage = {self.shrinkage}, half_life = {self.half_life}",
                expected="neighbours ≥ 1, shrinkage ≥ 0, half_life ≥ 0",
            )

    def fit(self, data: Prepared, split: Split) -> "ItemKNNScorer":
        matrix = training_matrix(data, split)
        columns, size = matrix.T.tocsr(), matrix.shape[1]
        roots = np.sqrt(np.asarray(matrix.sum(0)).ravel())
        step = max(1, BLOCK_BYTES // (4 * size))
        parts = [self._nearest(columns[start : start + step] @ matrix, roots, start) for start in range(0, size, step)]
        return ItemKNNScorer(data, sparse.vstack(parts).T.tocsr(), self.half_life)

    def _nearest(self, both: sparse.csr_matrix, roots: np.ndarray, start: int) -> sparse.csr_matrix:
        """[c, items] similarities of the items start … start+c-1 with all, the largest of each kept; equal ones by
        lower row."""
        both = both.tocsr()
        rows = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
        both.data /= (roots[rows + start] * roots[both.indices] + self.shrinkage).astype(np.float32)
        both.data[rows + start == both.indices] = 0
        dense = torch.from_numpy(both.toarray())
        best = Best(len(dense), self.neighbours)
        for first, last in blocks(dense.shape[1], self.neighbours):
            best.add(dense[:, first:last], first)
        nearest, values = best.rows(), best.values().numpy()
        kept = (nearest != UNKNOWN) & (values > 0)
        return sparse.csr_matrix((values[kept], nearest[kept], np.r_[0, np.cumsum(kept.sum(1))]), both.shape)


class ItemKNNScorer:
    """The sum of similarities to the distinct items of a history."""

    def __init__(self, data: Prepared, similarity: sparse.csr_matrix, half_life: float) -> None:
        self._data, self._similarity, self._half_life = data, similarity, half_life

    def scores(self, events: Events) -> Tensor:
        history = history_matrix(self._data.events, events, len(self._data.items), self._half_life)
        return torch.from_numpy((history @ self._similarity).toarray().astype(np.float32))

    def neighbours(self, keep: int) -> dict[str, NDArray[Any]]:
        return {**nearest(self._similarity, keep), "half_life": np.array([self._half_life])}


EXAMPLES = (ItemKNN(neighbours=10), ItemKNN(half_life=3))
