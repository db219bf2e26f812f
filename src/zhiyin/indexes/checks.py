"""What every backend refuses, and with which words."""

from pathlib import Path

import numpy as np

from zhiyin.errors import SearchError
from zhiyin.indexes.base import Allowed, Vectors


def check_vectors(vectors: Vectors) -> Vectors:
    """[m, d] contiguous float32. Raises `SearchError` for another type or shape, no rows, or a number not finite."""
    if vectors.dtype != np.float32 or vectors.ndim != 2 or not len(vectors):
        raise SearchError(
            f"vectors of {vectors.dtype} {list(vectors.shape)}", where="index build", expected="float32 [m, d], m ≥ 1"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise SearchError(
            f"row {int(np.flatnonzero(~finite)[0])} has a number that is not finite ({int((~finite).sum())} such rows)",
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
    if not np.isfinite(queries).all():
        raise SearchError("a query has a number that is not finite", where="index search")
    if allowed is not None and allowed.shape != (size,):
        raise SearchError(f"allowed of shape {list(allowed.shape)}", where="index search", expected=f"[{size}]")
    return np.ascontiguousarray(queries, np.float32)


def foreign(path: Path, why: str) -> SearchError:
    """The error for a file that is no index of this backend."""
    return SearchError(f"not this backend's index, or a damaged one ({why})", where=str(path), remedy="Publish again.")
