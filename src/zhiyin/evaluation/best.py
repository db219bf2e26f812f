"""The k best of a matrix whose columns come a block at a time: exact, in memory that does not grow with the matrix."""

import torch
from torch import Tensor

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import TrainingError

GROUP = 32
"""Neighbouring columns that are passed over together when the largest of them is no candidate."""


class Best:
    """The k largest of each of n queries' scores so far, descending; equal scores by lower row.

    Columns must come in ascending order. What is not above the k-th best so far is never looked at twice: its group of
    columns is passed over by its maximum. The rest waits until there is enough to be worth a sort.
    """

    def __init__(self, queries: int, k: int, device: torch.device | None = None) -> None:
        self._values = torch.full((queries, k), -torch.inf, device=device)
        self._rows = torch.full((queries, k), UNKNOWN, dtype=torch.int32, device=device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = 0

    def add(self, scores: Tensor, start: int) -> None:
        """scores [n, c] of the columns start … start+c-1. Raises `TrainingError` for one that is NaN."""
        queries, columns = _above(scores, self._values[:, -1:])
        if len(queries):
            self._waiting.append((queries, (columns + start).to(torch.int32), scores[queries, columns].float()))
            self._count += len(queries)
        if self._count > self._values.numel() // 2:
            self._sort()

    def rows(self) -> Rows:
        """[n, k] the rows of the best; `UNKNOWN` after the last score above −inf."""
        return self._sorted()[1].cpu().numpy()

    def values(self) -> Tensor:
        """[n, k] their scores; −inf after the last."""
        return self._sorted()[0]

    def _sorted(self) -> tuple[Tensor, Tensor]:
        if self._count:
            self._sort()
        return self._values, self._rows

    def _sort(self) -> None:
        """Merge what waits. The best so far stand first and have the lower rows, so stable sorts keep the tie rule."""
        n, k = self._values.shape
        held = torch.arange(n, device=self._values.device).repeat_interleave(k)
        queries = torch.cat([held, *(part[0] for part in self._waiting)])
        rows = torch.cat([self._rows.ravel(), *(part[1] for part in self._waiting)])
        values, order = torch.sort(
            torch.cat([self._values.ravel(), *(part[2] for part in self._waiting)]), descending=True, stable=True
        )
        queries, by_query = torch.sort(queries[order], stable=True)
        lengths = torch.bincount(queries, minlength=n)
        places = torch.arange(len(queries), device=queries.device) - (torch.cumsum(lengths, 0) - lengths)[queries]
        kept = places < k
        self._values, self._rows = values[by_query][kept].view(n, k), rows[order][by_query][kept].view(n, k)
        self._waiting, self._count = [], 0


def _above(scores: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The places (queries, columns) of scores [n, c] above bound [n, 1]; of one query, columns ascend."""
    whole = scores.shape[1] // GROUP * GROUP
    groups, rest = scores[:, :whole].view(len(scores), whole // GROUP, GROUP), scores[:, whole:]
    tops = groups.amax(2) if whole else groups.new_empty(len(scores), 0)
    if tops.isnan().any() or rest.isnan().any():
        raise TrainingError(
            "there are scores that are NaN",
            where="evaluation",
            remedy="The model has diverged: lower the learning rates and fit again.",
        )
    queries, group = torch.nonzero(tops > bound, as_tuple=True)
    hot, place = torch.nonzero(groups[queries, group] > bound[queries], as_tuple=True)
    last_queries, last_columns = torch.nonzero(rest > bound, as_tuple=True)
    columns = torch.cat([group[hot] * GROUP + place, last_columns + whole])
    return torch.cat([queries[hot], last_queries]), columns


def top_rows(scores: Tensor, k: int) -> Rows:
    """[n, k] the rows of the k best of scores [n, m], descending; equal scores by lower row; `UNKNOWN` for −inf."""
    best = Best(len(scores), k, scores.device)
    for start, stop in blocks(scores.shape[1], k):
        best.add(scores[:, start:stop], start)
    return best.rows()


FIRST, LARGEST = 512, 4096
"""Columns in the first block and in the largest."""


def blocks(columns: int, k: int) -> list[tuple[int, int]]:
    """(start, stop) of blocks that double from `FIRST` (or k) to `LARGEST`: while few scores are known most are above
    the bound, and early sorts lower what the later blocks let through."""
    found, start, size = [], 0, max(FIRST, -(-k // GROUP) * GROUP)
    while start < columns:
        found.append((start, min(start + size, columns)))
        start, size = start + size, max(size, min(2 * size, LARGEST))
    return found
