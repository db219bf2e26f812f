"""IVF-flat: vectors in cells round k-means centres; a search looks into the nearest cells. By faiss, inner products."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss

from zhiyin.errors import SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import check_vectors
from zhiyin.indexes.faiss_files import FaissIndex, load

POINTS_PER_CELL = 39
"""What k-means wants to see of each cell, by faiss's own advice."""


@dataclass(frozen=True, slots=True)
class IVFFlat:
    """`nlist`: cells; 0 takes 4·√m, fewer when the catalogue is small. `nprobe`: cells a search looks into. `seed`: of
    the k-means."""

    nlist: int = 0
    nprobe: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.nlist < 0 or self.nprobe < 1:
            raise SpecError(f"nlist = {self.nlist}, nprobe = {self.nprobe}", expected="nlist ≥ 0 and nprobe ≥ 1")

    def build(self, vectors: Vectors) -> FaissIndex:
        vectors = check_vectors(vectors)
        dim = vectors.shape[1]
        auto = max(1, min(round(4 * math.sqrt(len(vectors))), len(vectors) // POINTS_PER_CELL))
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(dim), dim, min(self.nlist or auto, len(vectors)), faiss.METRIC_INNER_PRODUCT
        )
        index.cp.seed = self.seed
        index.cp.min_points_per_centroid = 1  # a small catalogue is no reason for a warning
        index.train(vectors)
        index.add(vectors)
        return FaissIndex(index, vectors, self._parameters)

    def load(self, path: Path, vectors: Vectors) -> FaissIndex:
        return FaissIndex(load(path, faiss.IndexIVFFlat, vectors), vectors, self._parameters)

    def _parameters(self, k: int, selector: Any) -> Any:
        return faiss.SearchParametersIVF(sel=selector, nprobe=self.nprobe)


EXAMPLES = (IVFFlat(nlist=8, nprobe=8), IVFFlat())
