"""How often an item is seen: exactly, where the log is at hand, and from the stream of batches, where it is not."""

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.vocabulary import Rows
from zhiyin.learning.base import Floats


def example_frequencies(rows: Rows, catalogue_size: int, weights: Floats) -> Floats:
    """[m] each item's share of the training examples; `weights` [n] is how likely each example is to be drawn."""
    counts = np.bincount(rows, weights, minlength=catalogue_size).astype(np.float64, copy=False)
    counts /= counts.sum()
    return np.asarray(counts, np.float32)


class StreamingFrequency:
    """Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling", algorithm 2 (several hashes): how many steps pass
    between two batches with an item.

    `last` (the paper's A) [hashes, buckets] the step of each bucket's newest item; `gap` (B) [hashes, buckets] the
    mean number of steps between two, moved by `rate` (α). A bucket that several items share sees them too often, so
    the largest gap of an item's buckets is nearest the truth.

    A batch may hold an item several times: `often` [hashes, buckets] is how many, on average, a batch holds that holds
    it at all, moved by `rate` too. 1 / gap is a chance and stays below 1; often / gap is an expected count.

    Two departures: gaps start at what a uniform catalogue would give, m / batch size, instead of 0; and a bucket never
    seen before has no gap to learn from yet.
    """

    def __init__(
        self,
        catalogue_size: int,
        batch_size: int,
        *,
        buckets: int = 1 << 20,
        hashes: int = 4,
        rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rate, self.buckets = rate, buckets
        self.last = torch.zeros(hashes, buckets, dtype=torch.int64)
        self.gap = torch.full((hashes, buckets), max(1.0, catalogue_size / batch_size))
        self.often = torch.ones(hashes, buckets)
        self._factors = torch.randint(1, 2**31 - 1, (hashes, 2), generator=generator)

    def places(self, rows: Tensor) -> Tensor:
        """[hashes, n] the bucket of each row under each hash: (a·row + b) mod (2³¹ − 1) mod buckets."""
        a, b = self._factors.to(rows.device).unbind(1)
        return (a[:, None] * rows + b[:, None]) % (2**31 - 1) % self.buckets

    def update(self, rows: Tensor, step: int) -> None:
        """Step `step` (counted from 1) has a batch of these rows int64 [n]; each distinct one counts once."""
        distinct, counts = torch.unique(rows, return_counts=True)
        places = self.places(distinct)
        often = self.often.gather(1, places)
        self.often.scatter_(1, places, often + self.rate * (counts - often))
        seen = self.last.gather(1, places)
        gap = self.gap.gather(1, places)
        moved = torch.where(seen > 0, (1 - self.rate) * gap + self.rate * (step - seen), gap)
        self.gap.scatter_(1, places, moved)
        self.last.scatter_(1, places, step)

    def expected_counts(self, rows: Tensor) -> Tensor:
        """[n] how many of each row a batch holds on average: of an item's buckets, those that are shared least."""
        return self.probabilities(rows) * self.often.gather(1, self.places(rows)).amin(0)

    def probabilities(self, rows: Tensor) -> Tensor:
        """[n] how likely a batch holds each row at all: 1 / the largest mean gap, at most 1."""
        return (1 / self.gap.gather(1, self.places(rows)).amax(0)).clamp(max=1)
