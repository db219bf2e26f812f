"""IVF-PQ fast-scan: cells as in `ivf`, vectors in 4-bit codes that are compared in registers (André et al. 2015, "Cache
locality is not enough"), the hits scored again from the vectors themselves. By faiss, inner products."""

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

REFINES = (2.0, 3.0, 4.5, 7.0)
"""Worth trying."""

REGISTER = 32
"""Codes stand together in so many: half of that is empty, on average, in each cell."""

BITS = 4
"""Of a code: what fits a register."""


@dataclass(frozen=True, slots=True)
class IVFPQ:
    """`nlist`, `nprobe`, `seed`: as in IVF-flat. `numbers_per_code`: how many of a vector's numbers share one 4-bit
    code; fewer where the dimension cannot be divided by it. `refine`: how many hits are scored again from the
    memory-mapped vectors for each one asked for, at least 1."""

    nlist: int = 0
    nprobe: int = 48
    numbers_per_code: int = 2
    refine: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_cells(self.nlist, self.nprobe)
        if self.numbers_per_code < 1 or not self.refine >= 1:
            raise SpecError(
                f"numbers_per_code = {self.numbers_per_code}, refine = {self.refine}", expected="both at least 1"
            )

    def build(self, vectors: Vectors) -> FaissIndex:
        vectors = check_vectors(vectors)
        dim, cells = vectors.shape[1], cell_count(self.nlist, len(vectors))
        together = next(n for n in range(self.numbers_per_code, 0, -1) if dim % n == 0)
        index = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(dim), dim, cells, dim // together, BITS, faiss.METRIC_INNER_PRODUCT
        )
        index.by_residual = True
        index.pq.cp.min_points_per_centroid = 1
        return FaissIndex(filled(index, vectors, self.seed), ExactIndex(vectors), self)

    def load(self, path: Path, vectors: Vectors) -> FaissIndex:
        return FaissIndex(load(path, faiss.IndexIVFPQFastScan, vectors), ExactIndex(vectors), self)

    def parameters(self, index: Any, k: int, selector: Any, widen: float) -> Any:
        return probing(index, self.nprobe, selector, widen)

    @classmethod
    def candidates(cls, size: int, dim: int, seed: int) -> tuple[Self, ...]:
        return (cls(seed=seed),)

    def ladders(self, size: int, k: int) -> tuple[tuple[Self, ...], ...]:
        probes = probe_rungs(self.nlist, size, k)
        return tuple(tuple(replace(self, refine=r, nprobe=n) for n in probes) for r in REFINES)

    def with_cells(self, size: int, ratio: float) -> Self | None:
        cells = other_cells(cell_count(self.nlist, size), size, ratio)
        return replace(self, nlist=cells) if cells else None

    def memory(self, size: int, dim: int) -> int:
        code = -(-dim // (2 * self.numbers_per_code))
        cells = cell_count(self.nlist, size)
        return size * (code + ID_BYTES) + cells * (4 * dim + code * REGISTER // 2)

    def installed(self) -> bool:
        return True

    def growth(self) -> float:
        return GROWTH

    def foretells(self) -> bool:
        return False


EXAMPLES = (IVFPQ(nlist=8, nprobe=8, numbers_per_code=1), IVFPQ())
