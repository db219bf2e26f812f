"""In-batch negatives whose frequencies are estimated from the stream of batches, as in Yi et al. 2019."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from zhiyin.errors import SpecError
from zhiyin.learning.base import Catalogue, Negatives, NegativeSampler, Positives
from zhiyin.learning.frequency import StreamingFrequency

FOREVER = 1 << 40
"""Steps: a stream is the sum of all that went before."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """The batch's own positives are each other's negatives; how often each is expected is learned on the way.

    `rate` (the paper's α), `hashes` and `buckets` are the estimator's. For a stream that has no end, or whose items
    have no vocabulary; where the log is at hand, `negatives:InBatch` knows the same exactly.
    """

    remembers: ClassVar[int] = FOREVER
    mines: ClassVar[bool] = False

    rate: float = 0.05
    hashes: int = 4
    buckets: int = 1 << 20

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or self.hashes < 1 or self.buckets < 1:
            raise SpecError(
                f"rate = {self.rate}, hashes = {self.hashes}, buckets = {self.buckets}",
                expected="0 < rate ≤ 1, hashes ≥ 1 and buckets ≥ 1",
            )

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return batch_size

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        stream = StreamingFrequency(
            catalogue.size, catalogue.batch_size, buckets=self.buckets, hashes=self.hashes, rate=self.rate
        )

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            rows = torch.from_numpy(positives.rows)
            stream.update(rows, step + 1)
            logq = stream.expected_counts(rows).log().numpy()
            return Negatives(positives.rows, logq, logq, positives.users)

        return draw


EXAMPLES = (Streaming(rate=0.02, buckets=4096),)
