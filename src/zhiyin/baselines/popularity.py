"""Popularity: the same order for everyone, and the baseline that sampled metrics hide."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import DAY, Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, SpecError


@dataclass(frozen=True, slots=True)
class Popularity:
    """Training events of each item; only those of the last `days` before training ends, where given. With a
    `half_life` (days), an event that long before training's end counts half."""

    days: float | None = None
    half_life: float | None = None

    def __post_init__(self) -> None:
        for name in ("days", "half_life"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SpecError(f"{value}", where=f".{name}", expected="a number above 0")

    def fit(self, data: Prepared, split: Split) -> "PopularityScorer":
        """Raises `DataError` for a window or a half-life on a log without clock times."""
        if (self.days is not None or self.half_life is not None) and not data.clock:
            raise DataError(
                "days need clock times",
                where="Popularity",
                remedy="Leave `days` and `half_life` out, or set time_unit.",
            )
        log, events = data.events, split.train[data.events.items[split.train] != UNKNOWN]
        ages = (split.end - log.times[events]) / DAY
        if self.days is not None:
            events, ages = events[ages < self.days], ages[ages < self.days]
        weights = np.ones(len(events)) if self.half_life is None else 0.5 ** (ages / self.half_life)
        counts = np.bincount(log.items[events], weights, minlength=len(data.items))
        return PopularityScorer(torch.from_numpy(counts.astype(np.float32)))


class PopularityScorer:
    """Scores by a count: a user is 1 and an item its count."""

    def __init__(self, counts: Tensor) -> None:
        self.items = counts[:, None]

    def users(self, events: Events) -> Tensor:
        return torch.ones(len(events), 1, 1)

    def scores(self, events: Events) -> Tensor:
        return self.items[:, 0].expand(len(events), -1).clone()


EXAMPLES = (Popularity(), Popularity(days=7), Popularity(half_life=7))
