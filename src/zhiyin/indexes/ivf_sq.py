"""IVF-SQ8: cells as in `ivf`, each number of a vector in one byte, the hits scored again from the vectors themselves.
By faiss, inner products."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import faiss

from zhiyin.errors import SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import check_vectors
from zhiyin.indexes.exact import ExactIndex
from zhiyin.indexes.faiss_files import FaissIndex, load
from zhiyin.indexes.ivf import GROWTH, ID_BYTES, cell_count, check_cells, filled, other_cells, probe_rungs, probing


@dataclass(frozen=True, slots=True)
class IVFSQ8:
    """A quarter of IVF-flat's memory. `nlist`, `nprobe`, `seed`: as there. `refine`: how many hits are scored again
    from the memory-mapped vectors for each one asked for, at least 1."""

    nlist: int = 0
    nprobe: int = 32
    refine: float = 1.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_cells(self.nlist, self.nprobe)
        if not self.refine >= 1:
            raise SpecError(f"refine = {self.refine}", expected="at least 1")

    def build(self, vectors: Vectors) -> FaissIndex:
        vectors = check_vectors(vectors)
        dim, cells = vectors.shape[1], cell_count(self.nlist, len(vectors))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim), dim, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        return FaissIndex(filled(index, vectors, self.seed), ExactIndex(vectors), self)

    def load(self, path: Path, vectors: Vectors) -> FaissIndex:
        return FaissIndex(load(path, faiss.IndexIVFScalarQuantizer, vectors), ExactIndex(vectors), self)

    def parameters(self, index: Any, k: int, selector: Any, widen: float) -> Any:
        return probing(index, self.nprobe, selector, widen)

    @classmethod
    def candidates(cls, size: int, dim: int, seed: int) -> tuple[Self, ...]:
        return (cls(seed=seed),)

    def ladders(self, size: int, k: int) -> tuple[tuple[Self, ...], ...]:
        return (tuple(replace(self, nprobe=n) for n in probe_rungs(self.nlist, size, k)),)

    def with_cells(self, size: int, ratio: float) -> Self | None:
        cells = other_cells(cell_count(self.nlist, size), size, ratio)
        return replace(self, nlist=cells) if cells else None

    def memory(self, size: int, dim: int) -> int:
        return size * (dim + ID_BYTES) + cell_count(self.nlist, size) * 4 * dim

    def installed(self) -> bool:
        return True

    def growth(self) -> float:
        return GROWTH

    def foretells(self) -> bool:
        return False


EXAMPLES = (IVFSQ8(nlist=8, nprobe=8), IVFSQ8())
