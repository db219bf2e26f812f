"""Where negatives come from. Each sampler returns rows and the log of how often each is expected among them (logQ).

The law: E[Σ_j exp(s_j − logq_j)] = Σ over the catalogue of exp(s), whatever the scores. For in-batch negatives the sum
is over the items that any training example has, since no other can come.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.learning.base import Catalogue, Floats, Negatives, NegativeSampler, Positives


@dataclass(frozen=True, slots=True)
class InBatch:
    """The batch's own positives are each other's negatives (Yi et al. 2019): expected n·p(y) times each."""

    remembers: ClassVar[int] = 0
    mines: ClassVar[bool] = False

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return batch_size

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        logp = log(catalogue.frequencies)

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            logq = logp[positives.rows] + np.float32(math.log(len(positives)))
            return Negatives(positives.rows, logq, logq, positives.users)

        return draw


@dataclass(frozen=True, slots=True)
class Uniform:
    """`count` items, each as likely as any other: expected count / m times each."""

    remembers: ClassVar[int] = 0
    mines: ClassVar[bool] = False

    count: int = 512

    def __post_init__(self) -> None:
        _check_count(self.count)

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return self.count

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        logq = np.float32(math.log(self.count / catalogue.size))

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            rows = random.integers(catalogue.size, size=self.count)
            return Negatives(rows, np.full(self.count, logq), np.full(len(positives), logq))

        return draw


@dataclass(frozen=True, slots=True)
class Popularity:
    """`count` items with p(y) ∝ frequency^`power`, drawn with replacement; `floor` of the draws go to all items alike,
    so that items no example has can be negatives too."""

    remembers: ClassVar[int] = 0
    mines: ClassVar[bool] = False

    count: int = 512
    power: float = 0.75
    floor: float = 0.01

    def __post_init__(self) -> None:
        _check_count(self.count)
        if self.power < 0 or not 0 < self.floor <= 1:
            raise SpecError(f"power = {self.power}, floor = {self.floor}", expected="power ≥ 0 and 0 < floor ≤ 1")

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return self.count

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        chances = catalogue.frequencies.astype(np.float64)  # in place from here: a catalogue may be large
        np.power(chances, self.power, out=chances, where=chances > 0)
        chances *= (1 - self.floor) / chances.sum()
        chances += self.floor / catalogue.size
        logq = chances.astype(np.float32)
        logq *= self.count
        np.log(logq, out=logq)
        upto = np.cumsum(chances, out=chances)
        last = catalogue.size - 1  # what is drawn needs no frequencies: they may go

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            rows = np.searchsorted(upto, random.random(self.count) * upto[-1], side="right")
            rows = np.minimum(rows, last)
            return Negatives(rows, logq[rows], logq[positives.rows])

        return draw


@dataclass(frozen=True, slots=True)
class LogUniform:
    """`count` items with p ∝ log((k + 2) / (k + 1)) for the item of popularity rank k = 0, 1, …, drawn with
    replacement: about Zipf's law, whatever the counts are. Ranks are worked out here, from the training examples."""

    remembers: ClassVar[int] = 0
    mines: ClassVar[bool] = False

    count: int = 512

    def __post_init__(self) -> None:
        _check_count(self.count)

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return self.count

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        by_rank = np.argsort(-catalogue.frequencies, kind="stable")
        ranks = np.arange(catalogue.size)
        logq = np.empty(catalogue.size, np.float32)
        logq[by_rank] = np.log(self.count * np.log1p(1 / (ranks + 1)) / math.log(catalogue.size + 1))

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            drawn = np.exp(random.random(self.count) * math.log(catalogue.size + 1)).astype(np.int64) - 1
            rows = by_rank[np.clip(drawn, 0, catalogue.size - 1)]
            return Negatives(rows, logq[rows], logq[positives.rows])

        return draw


@dataclass(frozen=True, slots=True)
class Mixed:
    """The batch's positives and `uniform` items besides (Yang et al. 2020, "Mixed Negative Sampling"): expected
    n·p(y) + uniform / m times each."""

    remembers: ClassVar[int] = 0
    mines: ClassVar[bool] = False

    uniform: int = 512

    def __post_init__(self) -> None:
        _check_count(self.uniform, "uniform")

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return batch_size + self.uniform

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            drawn = random.integers(catalogue.size, size=self.uniform)
            rows = np.concatenate([positives.rows, drawn])
            counts = catalogue.frequencies[rows] * len(positives) + self.uniform / catalogue.size
            logq = np.log(counts).astype(np.float32)
            owners = np.concatenate([positives.users, np.full(self.uniform, UNKNOWN)])
            return Negatives(rows, logq, logq[: len(positives)], owners)

        return draw


@dataclass(frozen=True, slots=True)
class CrossBatch:
    """The positives of this batch and of the `batches` before it (Wang et al. 2021, "Cross-Batch Negative Sampling"):
    with N examples in all, expected N·p(y) times each.

    Where the paper keeps old vectors, here the item tower sees the rows again: what it gives is never stale, and an
    item that several batches share is read once.
    """

    mines: ClassVar[bool] = False

    batches: int = 4

    def __post_init__(self) -> None:
        _check_count(self.batches, "batches")

    @property
    def remembers(self) -> int:
        return self.batches

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return batch_size * (1 + self.batches)

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        logp = log(catalogue.frequencies)
        before: deque[Positives] = deque(maxlen=self.batches)

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            kept = [positives, *before]
            before.appendleft(positives)
            rows = np.concatenate([one.rows for one in kept])
            many = np.float32(math.log(len(rows)))
            owners = np.concatenate([one.users for one in kept])
            return Negatives(rows, logp[rows] + many, logp[positives.rows] + many, owners)

        return draw


@dataclass(frozen=True, slots=True)
class WholeCatalogue:
    """Every item, once: nothing is sampled, logQ is 0. For catalogues that fit a batch's scores."""

    remembers: ClassVar[int] = 0
    mines: ClassVar[bool] = False

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return catalogue_size

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        rows, nothing = np.arange(catalogue.size), np.zeros(catalogue.size, np.float32)

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            return Negatives(rows, nothing, np.zeros(len(positives), np.float32))

        return draw


def log(frequencies: Floats) -> Floats:
    """log of each, that of the smallest number for 0."""
    return np.log(np.maximum(frequencies, np.finfo(np.float32).tiny))


def _check_count(count: int, name: str = "count") -> None:
    if count < 1:
        raise SpecError(f"{count}", where=f".{name}", expected="at least 1")


EXAMPLES = (InBatch(), Uniform(64), Popularity(64), LogUniform(64), Mixed(32), CrossBatch(2), WholeCatalogue())
