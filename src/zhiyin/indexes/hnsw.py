"""HNSW (Malkov & Yashunin 2016, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs"), by faiss, for inner products."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import faiss

from zhiyin.errors import SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import check_vectors
from zhiyin.indexes.exact import ExactIndex
from zhiyin.indexes.faiss_files import FaissIndex, load
from zhiyin.indexes.tunable import rungs

MOST_LOOKED_AT = 4096
"""Nodes: a search that must look at more is better done otherwise."""


@dataclass(frozen=True, slots=True)
class HNSW:
    """`m`: links a node keeps. `ef_construction`, `ef_search`: how many nodes are looked at when building and when
    searching (never fewer than k)."""

    m: int = 32
    ef_construction: int = 128
    ef_search: int = 128

    def __post_init__(self) -> None:
        if self.m < 2 or self.ef_construction < 1 or self.ef_search < 1:
            raise SpecError(
                f"m = {self.m}, ef_construction = {self.ef_construction}, ef_search = {self.ef_search}",
                expected="m ≥ 2 and both ef ≥ 1",
            )

    @property
    def refine(self) -> float:
        return 0

    def build(self, vectors: Vectors) -> FaissIndex:
        vectors = check_vectors(vectors)
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.add(vectors)
        return FaissIndex(index, ExactIndex(vectors), self)

    def load(self, path: Path, vectors: Vectors) -> FaissIndex:
        return FaissIndex(load(path, faiss.IndexHNSWFlat, vectors), ExactIndex(vectors), self)

    def parameters(self, index: Any, k: int, selector: Any, widen: float) -> Any:
        return faiss.SearchParametersHNSW(sel=selector, efSearch=round(max(k, self.ef_search) * widen))

    @classmethod
    def candidates(cls, size: int, dim: int, seed: int) -> tuple[Self, ...]:
        return (cls(),)

    def ladders(self, size: int, k: int) -> tuple[tuple[Self, ...], ...]:
        return (tuple(replace(self, ef_search=ef) for ef in rungs(k, max(k, min(size, MOST_LOOKED_AT)))),)

    def with_cells(self, size: int, ratio: float) -> Self | None:
        return None

    def memory(self, size: int, dim: int) -> int:
        return size * (4 * dim + 8 * self.m + 16)

    def installed(self) -> bool:
        return True

    def growth(self) -> float:
        return 1.2

    def foretells(self) -> bool:
        return True


EXAMPLES = (HNSW(m=16, ef_construction=64, ef_search=64),)
