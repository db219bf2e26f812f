"""How sure a figure is. Users are what was drawn from the world, so users are what is drawn again: all queries of one
stay together. Values are [n, c] (n queries, c figures); NaN where a query has no part in a figure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.events import Events
from zhiyin.data.vocabulary import Rows
from zhiyin.evaluation.metrics import Values

RESAMPLES = 1000
"""Bootstrap samples."""

FLIPS = 10_000
"""Sign flips of the paired test."""

BLOCK = 1 << 22
"""Numbers drawn at a time."""


def means(values: Values) -> Values:
    """[c] the mean over the queries that have a part in each figure; NaN where none has."""
    counts = (~np.isnan(values)).sum(0)
    return np.asarray(np.where(counts, np.nansum(values, 0), np.nan) / np.maximum(counts, 1))


def intervals(values: Values, users: Rows | Events, *, seed: int = 0, level: float = 0.95) -> tuple[Values, Values]:
    """[c], [c] the ends of each mean's bootstrap percentile interval (Efron 1979) over users [n]."""
    sums, counts = _by_user(values, users)
    parts = [
        _ratio(weights @ sums, weights @ counts)
        for weights in _draws(len(sums), RESAMPLES, np.random.default_rng(seed))
    ]
    means = np.concatenate(parts)
    with np.errstate(all="ignore"):
        tail = (1 - level) / 2
        low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
        some = ~np.isnan(means).all(0)
        low[some], high[some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0)
    return low, high


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs by one figure: their means, `difference` = second − first with its interval, and `p`: how often chance
    alone makes a difference at least this large, if for each user it were arbitrary which run is which."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def differences(first: Values, second: Values, users: Rows | Events, *, seed: int = 0) -> list[Difference]:
    """One for each of c figures: a paired bootstrap interval and a two-sided paired permutation test (sign flips of
    each user's difference; Fisher 1935)."""
    gaps = second - first
    low, high = intervals(gaps, users, seed=seed)
    sums, _ = _by_user(gaps, users)
    observed = np.abs(sums.sum(0))
    random, extreme = np.random.default_rng(seed), np.zeros(gaps.shape[1])
    for size in _sizes(len(sums), FLIPS):
        signs = random.integers(0, 2, (size, len(sums))).astype(np.float64) * 2 - 1
        extreme += (np.abs(signs @ sums) >= observed - 1e-9).sum(0)
    p = (extreme + 1) / (FLIPS + 1)
    return [
        Difference(*map(float, row)) for row in zip(means(first), means(second), means(gaps), low, high, p, strict=True)
    ]


def _by_user(values: Values, users: Rows | Events) -> tuple[Values, Values]:
    """[u, c] each user's sum and count of values."""
    names, place = np.unique(users, return_inverse=True)
    sums, counts = np.zeros((len(names), values.shape[1])), np.zeros((len(names), values.shape[1]))
    np.add.at(sums, place, np.nan_to_num(values))
    np.add.at(counts, place, ~np.isnan(values))
    return sums, counts


def _draws(users: int, count: int, random: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """[b, u] how often each user is in each sample of as many users."""
    for size in _sizes(users, count):
        drawn = random.integers(0, users, (size, users)) + np.arange(size)[:, None] * users
        yield np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users).astype(np.float64)


def _sizes(users: int, count: int) -> list[int]:
    step = max(1, min(count, BLOCK // max(users, 1)))
    return [min(step, count - start) for start in range(0, count, step)]


def _ratio(above: Values, below: Values) -> Values:
    return np.asarray(np.where(below > 0, above, np.nan) / np.maximum(below, 1))
