"""What every backend refuses, and with which words."""

import math
from pathlib import Path

import numpy as np

from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Vectors


def check_vectors(vectors: Vectors) -> Vectors:
    """[m, d] contiguous float32. Raises `SearchError` for another type or shape, no rows, a number that is not finite,
    or a vector so long that a score could overflow."""
    if vectors.dtype != np.float32 or vectors.ndim != 2 or not vectors.size:
        raise SearchError(
            f"vectors of {vectors.dtype} {list(vectors.shape)}",
            where="index build",
            expected="float32 [m, d], m ≥ 1, d ≥ 1",
        )
    bad = ~np.isfinite(_squares(vectors))
    if bad.any():
        raise SearchError(
            f"row {int(np.flatnonzero(bad)[0])} has a number that is not finite, or a length that overflows "
            f"({int(bad.sum())} such rows)",
            where="index build",
            remedy="The model has diverged, or an item feature holds NaN.",
        )
    return np.ascontiguousarray(vectors)


def check_search(queries: Vectors, k: int, allowed: Allowed | None, size: int, dim: int) -> Vectors:
    """[n, d] contiguous float32 queries. Raises `SearchError` as the protocol says."""
    if k < 1:
        raise SearchError(f"k = {k}", where="index search", expected="at least 1")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise SearchError(f"queries of shape {list(queries.shape)}", where="index search", expected=f"[n, {dim}]")
    if allowed is not None and (allowed.shape != (size,) or allowed.dtype != np.bool_):
        raise SearchError(
            f"allowed of {allowed.dtype} {list(allowed.shape)}", where="index search", expected=f"bool [{size}]"
        )
    queries = np.ascontiguousarray(queries, np.float32)
    bad = np.flatnonzero(~np.isfinite(_squares(queries)))
    if len(bad):
        raise SearchError(
            f"query {bad[0]} has a number that is not finite, or a length that overflows", where="index search"
        )
    return queries


def longest(vectors: Vectors) -> float:
    """The length of the longest vector of [m, d]; 0 without any."""
    return math.sqrt(float(_squares(vectors).max(initial=0)))


def foreign(path: Path, why: str) -> SearchError:
    """The error for a file that is no index of this backend."""
    return SearchError(f"not this backend's index, or a damaged one ({why})", where=str(path), remedy="Publish again.")


def _squares(vectors: Vectors) -> Vectors:
    """[m] squared lengths: not finite where a number is not, or where they overflow."""
    squares: Vectors = np.empty(len(vectors), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.einsum("md,md->m", vectors, vectors, out=squares)
    return squares
