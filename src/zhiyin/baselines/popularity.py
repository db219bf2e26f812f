"""Popularity: the same order for everyone, and the baseline that sampled metrics hide."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import DAY, Split
from zhiyin.errors import DataError, SpecError


@dataclass(frozen=True, slots=True)
class Popularity:
    """Training events of each item; only those of the last `days` before training ends, where given."""

    days: float | None = None

    def __post_init__(self) -> None:
        if self.days is not None and not self.days > 0:
            raise SpecError(f"{self.days}", where=".days", expected="a number above 0")

    def fit(self, data: Prepared, split: Split) -> "PopularityScorer":
        """Raises `DataError` for a window on a log without clock times."""
        events = split.train
        if self.days is not None:
            if not data.clock:
                raise DataError("a window of days needs clock times", where="Popularity", remedy="Leave `days` out.")
            events = events[data.events.times[events] > split.end - self.days * DAY]
        counts = np.bincount(data.events.items[events], minlength=len(data.items))
        return PopularityScorer(torch.from_numpy(counts.astype(np.float32)))


class PopularityScorer:
    """Scores by a count."""

    def __init__(self, counts: Tensor) -> None:
        self._counts = counts

    def scores(self, events: Events) -> Tensor:
        return self._counts.expand(len(events), -1).clone()


EXAMPLES = (Popularity(), Popularity(days=7))
