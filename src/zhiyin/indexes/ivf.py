"""IVF-flat: vectors in cells round k-means centres; a search looks into the nearest cells. By faiss, inner products."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from zhiyin.errors import SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import check_vectors
from zhiyin.indexes.exact import ExactIndex
from zhiyin.indexes.faiss_files import FaissIndex, load
from zhiyin.indexes.tunable import rungs

POINTS_PER_CELL = 39
"""What k-means wants to see of each cell, by faiss's own advice."""

MOST_POINTS_PER_CELL = 64
"""More of them cost k-means time and gain no overlap (docs/decisions/0021)."""

FEWEST_CELLS = 16
"""Worth trying."""

ID_BYTES = 8
"""What a row's number takes in a cell."""

GROWTH = 1.1
"""From 100,000 to 1,000,000 vectors a build took ten to eleven times as long (docs/decisions/0046)."""

FEWEST_POINTS = 256
"""Codes of 4 bits need at least 16 vectors to learn from: fewer are repeated."""


@dataclass(frozen=True, slots=True)
class IVFFlat:
    """`nlist`: cells; 0 takes 4·√m, fewer when the catalogue is small. `nprobe`: cells a search looks into. `seed`: of
    the k-means."""

    nlist: int = 0
    nprobe: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_cells(self.nlist, self.nprobe)

    @property
    def refine(self) -> float:
        return 0

    def build(self, vectors: Vectors) -> FaissIndex:
        vectors = check_vectors(vectors)
        dim, cells = vectors.shape[1], cell_count(self.nlist, len(vectors))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        return FaissIndex(filled(index, vectors, self.seed), ExactIndex(vectors), self)

    def load(self, path: Path, vectors: Vectors) -> FaissIndex:
        return FaissIndex(load(path, faiss.IndexIVFFlat, vectors), ExactIndex(vectors), self)

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
        return size * (4 * dim + ID_BYTES) + cell_count(self.nlist, size) * 4 * dim

    def installed(self) -> bool:
        return True

    def growth(self) -> float:
        return GROWTH

    def foretells(self) -> bool:
        return False


def check_cells(nlist: int, nprobe: int) -> None:
    """Raises `SpecError` for numbers of cells that cannot be."""
    if nlist < 0 or nprobe < 1:
        raise SpecError(f"nlist = {nlist}, nprobe = {nprobe}", expected="nlist ≥ 0 and nprobe ≥ 1")


def cell_count(nlist: int, size: int) -> int:
    """How many cells: as the spec says, or 4·√m with enough vectors for each; never more than there are vectors."""
    return min(nlist or max(1, min(round(4 * math.sqrt(size)), size // POINTS_PER_CELL)), size)


def other_cells(cells: int, size: int, ratio: float) -> int:
    """`ratio` times as many cells; 0 where that is fewer than `FEWEST_CELLS`, or leaves too few vectors in each."""
    wanted = round(cells * ratio)
    return wanted if FEWEST_CELLS <= wanted <= size // POINTS_PER_CELL else 0


def probe_rungs(nlist: int, size: int, k: int) -> tuple[int, ...]:
    """From so few cells that they hold about 2k rows (fewer would leave queries short) to all."""
    cells = cell_count(nlist, size)
    return rungs(min(cells, -(-2 * k * cells // size)), cells)


def filled(index: Any, vectors: Vectors, seed: int) -> Any:
    """The IVF index, its centres and codes learnt from the vectors [m, d] and holding them."""
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1  # a small catalogue is no reason for a warning
    index.cp.max_points_per_centroid = MOST_POINTS_PER_CELL
    enough = len(vectors) >= FEWEST_POINTS
    index.train(vectors if enough else np.resize(vectors, (FEWEST_POINTS, vectors.shape[1])))
    index.add(vectors)
    return index


def probing(index: Any, nprobe: int, selector: Any, widen: float) -> Any:
    """faiss's parameters: a filter that hides most rows of a cell makes it look into more cells. Fast-scan answers
    wrongly when asked for more cells than there are."""
    return faiss.SearchParametersIVF(sel=selector, nprobe=min(round(nprobe * widen), index.nlist))


EXAMPLES = (IVFFlat(nlist=8, nprobe=8), IVFFlat())
