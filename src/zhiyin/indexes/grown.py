"""An index that never changes, seen together with what came since."""

from dataclasses import dataclass

import numpy as np

from zhiyin.data.vocabulary import Rows
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search
from zhiyin.indexes.delta import Layer, State, search


@dataclass(frozen=True, slots=True)
class Grown:
    """`base`: rows 0 … m-1 of an index, those that are still as it has them alive. `delta`: rows that were replaced, or
    came after: below `size`, all of them. It never changes, and every search of it sees the same."""

    base: Layer
    delta: State
    size: int

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        queries = check_search(queries, k, allowed, self.size, self.base.part.vectors.shape[1])
        return search((self.base, *self.delta.layers), queries, k, allowed)

    def vectors(self, rows: Rows) -> Vectors:
        """[n, d] the vectors of these rows; zeros for one that is not there."""
        found: Vectors = np.zeros((len(rows), self.base.part.vectors.shape[1]), np.float32)
        for layer in (self.base, *self.delta.layers):
            layer.copy(rows, found)
        return found
