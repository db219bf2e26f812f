"""Item-kNN (Sarwar et al. 2001; shrinkage as in Bell & Koren 2007): items bought together are near each other."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import SpecError

BLOCK = 1024
"""Items whose neighbours are found at a time."""


@dataclass(frozen=True, slots=True)
class ItemKNN:
    """sim(i, j) = users of both / (√(users of i · users of j) + `shrinkage`); the `neighbours` largest are kept."""

    neighbours: int = 100
    shrinkage: float = 10.0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.shrinkage < 0:
            raise SpecError(
                f"neighbours = {self.neighbours}, shrinkage = {self.shrinkage}",
                expected="neighbours ≥ 1, shrinkage ≥ 0",
            )

    def fit(self, data: Prepared, split: Split) -> "ItemKNNScorer":
        log = data.events
        shape = (len(data.users), len(data.items))
        ones = np.ones(len(split.train), np.float32)
        matrix = sparse.csr_matrix((ones, (log.users[split.train], log.items[split.train])), shape)
        matrix.data[:] = 1.0  # a user counts once, however often they came back
        users = np.sqrt(np.asarray(matrix.sum(0)).ravel())
        columns = matrix.T.tocsr()
        parts = [
            self._nearest((columns[start : start + BLOCK] @ matrix).tocoo(), users, start)
            for start in range(0, shape[1], BLOCK)
        ]
        return ItemKNNScorer(data, sparse.vstack(parts).T.tocsr())

    def _nearest(self, both: sparse.coo_matrix, users: np.ndarray, start: int) -> sparse.csr_matrix:
        """[block, m] similarities of items start … with all, the largest of each kept."""
        similarity = both.data / (users[both.row + start] * users[both.col] + self.shrinkage)
        similarity[both.row + start == both.col] = 0
        order = np.lexsort((-similarity, both.row))
        rows = both.row[order]
        ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = order[(ranks < self.neighbours) & (similarity[order] > 0)]
        return sparse.csr_matrix((similarity[kept], (both.row[kept], both.col[kept])), both.shape)


class ItemKNNScorer:
    """The sum of similarities to the distinct items of a history."""

    def __init__(self, data: Prepared, similarity: sparse.csr_matrix) -> None:
        self._data, self._similarity = data, similarity

    def scores(self, events: Events) -> Tensor:
        histories = [np.unique(self._data.events.history(int(event))) for event in events]
        counts = [len(history) for history in histories]
        indptr = np.r_[0, np.cumsum(counts)]
        items = np.concatenate(histories) if histories else np.zeros(0, np.int32)
        matrix = sparse.csr_matrix(
            (np.ones(len(items), np.float32), items, indptr), (len(events), len(self._data.items))
        )
        return torch.from_numpy((matrix @ self._similarity).toarray().astype(np.float32))


EXAMPLES = (ItemKNN(neighbours=10),)
