"""ScaNN (Guo et al. 2020, "Accelerating Large-Scale Inference with Anisotropic Vector Quantization"), where the package
`scann` is installed: leaves of a k-means tree, anisotropic 4-bit codes, the hits scored again in full."""

import importlib.util
import json
import math
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SearchError, SpecError
from zhiyin.indexes.base import Allowed, Hits, Vectors
from zhiyin.indexes.checks import check_search, check_vectors, foreign
from zhiyin.indexes.exact import ExactIndex
from zhiyin.indexes.filtering import OVER_FETCH, completed, fetched_for, is_tight, refined
from zhiyin.indexes.ivf import other_cells
from zhiyin.indexes.tunable import rungs

DATASET = "dataset.npy"
"""ScaNN's own copy of the vectors: not saved, since a release has them."""

SHAPE = "zhiyin.json"
"""The part of the file that says of which shape the vectors were."""

CENTRES = 16
"""Of a 4-bit code, which must be learnt from as many vectors."""

POINTS_PER_LEAF = 16
"""At least, in a small catalogue."""

TRAINING_POINTS_PER_LEAF = 96

TRAINING_POINTS_OF_CODES = 1024 * CENTRES
"""As many as the package takes by itself, 100,000, find no more and cost two fifths of a build
(docs/decisions/0046)."""

GROWTH = 1.1
"""As IVF's."""

REFINES = (2.0, 3.0, 4.5, 7.0)
"""Worth trying."""

SPARE = 8
"""Hits beyond k: ScaNN's own scores depend, in their last digit, on where in a batch a hit stands, so the k-th and the
next may have changed places."""

TOGETHER = 256
"""From so many queries on, ScaNN's own threads share them."""


@dataclass(frozen=True, slots=True)
class ScaNN:
    """`leaves`: of the tree; 0 takes 4·√m. `searched`: leaves a search looks into. `numbers_per_code`: how many of a
    vector's numbers share one code. `refine`: how many hits are scored again for each one asked for, at least 1.
    `threshold`: of anisotropic quantisation, the paper's T. What k-means draws has no seed: two builds differ a little.
    """

    leaves: int = 0
    searched: int = 150
    numbers_per_code: int = 2
    refine: float = 4.0
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.leaves < 0 or min(self.searched, self.numbers_per_code) < 1 or not self.refine >= 1:
            raise SpecError(
                f"leaves = {self.leaves}, searched = {self.searched}, numbers_per_code = {self.numbers_per_code}, "
                f"refine = {self.refine}",
                expected="leaves ≥ 0, the others ≥ 1",
            )

    def build(self, vectors: Vectors) -> "ScaNNIndex":
        vectors = check_vectors(vectors)
        builder = _scann().builder(vectors, 1, "dot_product")
        if len(vectors) < CENTRES:
            builder = builder.score_brute_force()
        else:
            leaves = min(self.leaves or default_leaves(len(vectors)), len(vectors))
            builder = builder.tree(
                num_leaves=leaves,
                num_leaves_to_search=min(self.searched, leaves),
                training_sample_size=min(len(vectors), max(4096, leaves * TRAINING_POINTS_PER_LEAF)),
            )
            builder = builder.score_ah(
                self.numbers_per_code,
                anisotropic_quantization_threshold=self.threshold,
                training_sample_size=min(len(vectors), TRAINING_POINTS_OF_CODES),
            )
            builder = builder.reorder(1)
        return ScaNNIndex(builder.build(), ExactIndex(vectors), self)

    @classmethod
    def candidates(cls, size: int, dim: int, seed: int) -> tuple[Self, ...]:
        return (cls(),)

    def ladders(self, size: int, k: int) -> tuple[tuple[Self, ...], ...]:
        leaves = min(size, self.leaves or default_leaves(size))
        searched = rungs(min(leaves, -(-2 * k * leaves // size)), leaves)
        return tuple(tuple(replace(self, refine=r, searched=n) for n in searched) for r in REFINES)

    def with_cells(self, size: int, ratio: float) -> Self | None:
        leaves = other_cells(min(size, self.leaves or default_leaves(size)), size, ratio)
        return replace(self, leaves=leaves) if leaves else None

    def memory(self, size: int, dim: int) -> int:
        return size * (4 * dim + -(-dim // (2 * self.numbers_per_code)) + 4)

    def installed(self) -> bool:
        return importlib.util.find_spec("scann") is not None

    def growth(self) -> float:
        return GROWTH

    def foretells(self) -> bool:
        return False

    def load(self, path: Path, vectors: Vectors) -> "ScaNNIndex":
        with tempfile.TemporaryDirectory(prefix="zhiyin-scann-") as name:
            folder = Path(name)
            _unpack(path, folder, vectors)
            try:
                searcher = _scann().load_searcher(str(folder))
            except RuntimeError as error:
                raise foreign(path, str(error).split("\n")[0][:120]) from None
        return ScaNNIndex(searcher, ExactIndex(vectors), self)


class ScaNNIndex:
    """A ScaNN searcher beside the vectors it was built from. How to search is said with each call, so many threads may
    search at once. It knows no filter: more is fetched than asked for, and what falls short is answered exactly."""

    def __init__(self, searcher: Any, exact: ExactIndex, spec: ScaNN) -> None:
        self._searcher, self._exact, self._spec = searcher, exact, spec

    def __len__(self) -> int:
        return len(self._exact)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        queries = check_search(queries, k, allowed, *self._exact.vectors.shape)
        passing = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if passing == len(self):
            allowed = None
        if allowed is not None and is_tight(passing, len(self), k):
            return self._exact.search(queries, k, allowed)
        widen = len(self) / passing
        rows = self._find(queries, k if allowed is None else math.ceil(OVER_FETCH * k * widen), widen)
        if allowed is not None:
            rows = np.where(allowed[rows], rows, UNKNOWN)
            there = np.argsort(rows == UNKNOWN, axis=1, kind="stable")[:, : k + SPARE]
            rows = np.take_along_axis(rows, there, 1)
        scores, rows = refined(queries, rows, self._exact.vectors, k)
        hits = Hits.none(len(queries), k)
        hits.rows[:, : rows.shape[1]], hits.scores[:, : rows.shape[1]] = rows, scores
        return completed(hits, self._exact, queries, k, allowed, passing)

    def save(self, path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="zhiyin-scann-") as name:
            try:
                self._searcher.serialize(name, relative_path=True)
            except RuntimeError as error:  # what ScaNN makes of a full disk
                raise OSError(f"ScaNN could not write its index: {str(error)[:200]}") from None
            with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
                archive.writestr(SHAPE, json.dumps(list(self._exact.vectors.shape)))
                for part in sorted(Path(name).iterdir()):
                    if part.name != DATASET:
                        archive.write(part, part.name)

    def searched_with(self, spec: ScaNN) -> "ScaNNIndex":
        """The same index, searched in another way."""
        return ScaNNIndex(self._searcher, self._exact, spec)

    def _find(self, queries: Vectors, count: int, widen: float) -> NDArray[np.int64]:
        """[n, f] a few more rows than `count`, the best first; a missing one is `UNKNOWN`."""
        fetched = min(count + SPARE, len(self))
        if not len(queries):
            return np.zeros((0, fetched), np.int64)
        search = self._searcher.search_batched if len(queries) < TOGETHER else self._searcher.search_batched_parallel
        rows, scores = search(
            queries,
            final_num_neighbors=fetched,
            pre_reorder_num_neighbors=min(fetched_for(fetched, self._spec.refine, 1.0), len(self)),
            leaves_to_search=round(self._spec.searched * widen),
        )
        return np.where(np.isnan(scores), UNKNOWN, rows.astype(np.int64))


def default_leaves(size: int) -> int:
    """4·√m, fewer when the catalogue is small."""
    return max(1, min(round(4 * math.sqrt(size)), size // POINTS_PER_LEAF))


def _unpack(path: Path, folder: Path, vectors: Vectors) -> None:
    """The parts of a saved index into `folder`, the vectors beside them. Raises `SearchError` for what is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            shape = json.loads(archive.read(SHAPE))
            archive.extractall(folder)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise foreign(path, str(error)) from None
    if shape != list(vectors.shape):
        raise foreign(path, f"it is of {shape}, the vectors are of {list(vectors.shape)}")
    source = Path(vectors.filename or "") if isinstance(vectors, np.memmap) else Path()
    if source.suffix == ".npy":
        (folder / DATASET).symlink_to(source.absolute())
    else:
        np.save(folder / DATASET, vectors)


def _scann() -> Any:
    """The package. Raises `SearchError` where it is not installed."""
    try:
        from scann import scann_ops_pybind  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise SearchError(
            f"ScaNN needs the package '{error.name}', which is not installed",
            where="indexes.scann",
            remedy="pip install 'zhiyin[scann]', or choose another index.",
        ) from None
    return scann_ops_pybind


EXAMPLES = (ScaNN(leaves=10, searched=10), ScaNN())
