"""A baseline's neighbours as plain arrays: what a release keeps, so that it can be asked without the baseline."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from zhiyin import spec
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import SpecError


@runtime_checkable
class Neighbouring(Protocol):
    """A fitted baseline that scores an item by its similarities to a history's items."""

    def neighbours(self, keep: int) -> dict[str, NDArray[Any]]:
        """`offsets` [m + 1]: row i's neighbours are `rows`[offsets[i]:offsets[i+1]], of similarities `scores`, the
        `keep` largest above 0; `half_life` [1]: events back at which an item of the history counts half, 0 for none."""
        ...


def fitted(baseline: Mapping[str, Any], data: Prepared, split: Split, keep: int) -> dict[str, NDArray[Any]]:
    """The neighbours that a baseline, as a recipe's table says it, gives each item. Raises `SpecError` for one that is
    not there, or has no neighbours."""
    scorer = spec.used_build(baseline, "zhiyin.baselines", ".baseline").fit(data, split)
    if not isinstance(scorer, Neighbouring):
        raise SpecError(
            f"use = {baseline['use']!r} scores by no neighbours",
            where=".baseline",
            expected="item_knn:ItemKNN or ease:EASE",
        )
    return scorer.neighbours(keep)


def nearest(similarity: sparse.csr_matrix, keep: int) -> dict[str, NDArray[Any]]:
    """The `keep` largest above 0 of each row of [m, m], largest first, equal ones by row."""
    own = np.repeat(np.arange(similarity.shape[0]), np.diff(similarity.indptr))
    order = np.lexsort((similarity.indices, -similarity.data, own))
    ranks = np.arange(len(order)) - similarity.indptr[own]
    kept = order[(ranks < keep) & (similarity.data[order] > 0)]
    counts = np.bincount(own[kept], minlength=similarity.shape[0])
    return {
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "rows": similarity.indices[kept].astype(np.int32),
        "scores": similarity.data[kept].astype(np.float32),
    }
