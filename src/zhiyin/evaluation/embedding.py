"""A map of the item vectors: their two main axes, coloured by a category."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.tables import Column
from zhiyin.evaluation.look import COLOURS
from zhiyin.evaluation.slices import rest_name

MOST = 1500
"""Items on the map, the most popular ones: more cannot be told apart."""

DIFFERENT = 0.9
"""A column of text is what items are called if more than this share of its values are different."""


def titles(ids: Sequence[str], table: Mapping[str, Column]) -> list[str]:
    """[m] what a person may know each item by: the first column of text that has hardly any value twice, with the id;
    the id alone where there is no such column, or no value."""
    for column in table.values():
        texts = [value for value in column if isinstance(value, str)] if column.dtype == object else []
        if len(set(texts)) > DIFFERENT * len(ids):
            return [f"{text} ({id})" if isinstance(text, str) else id for id, text in zip(ids, column, strict=True)]
    return list(ids)


def embedding(
    vectors: NDArray[np.float32],
    popularity: NDArray[np.int64],
    column: Column | None,
    name: str,
    called: Sequence[str],
) -> dict[str, Any]:
    """Principal components (Pearson 1901) of the item vectors [m, d]; `points` x, y and the number of its category;
    `names` are what the points are `called` [m].

    The category of an item is the first of its values; those that are not among the commonest are "other".
    """
    shown = np.argsort(-popularity, kind="stable")[:MOST]
    centred = (vectors[shown] - vectors[shown].mean(0)).astype(np.float64)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T
    places *= np.where(np.abs(places).max(0) == places.max(0), 1, -1)  # a direction has no sign of its own
    if places.shape[1] < 2:
        places = np.c_[places, np.zeros(len(places))]
    codes, categories = _categories(column[shown] if column is not None else np.full(len(shown), "items", object))
    total = float((lengths**2).sum()) or 1.0
    return {
        "column": name if column is not None else "",
        "categories": categories,
        "explained": [float(one) for one in lengths[:2] ** 2 / total],
        "points": [[round(float(x), 4), round(float(y), 4), int(c)] for (x, y), c in zip(places, codes, strict=True)],
        "names": [called[row] for row in shown],
    }


def _categories(values: Column) -> tuple[NDArray[np.int64], list[str]]:
    """[n] codes and their names: the commonest first, "other" last."""
    firsts = [str(v[0]) if isinstance(v, list | tuple | np.ndarray) and len(v) else str(v) for v in values]
    names, counts = np.unique(firsts, return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")].tolist()
    if len(kept) > COLOURS:
        kept = [*kept[: COLOURS - 1], rest_name(kept[: COLOURS - 1])]
    place = {name: at for at, name in enumerate(kept)}
    return np.array([place.get(first, len(kept) - 1) for first in firsts]), kept
