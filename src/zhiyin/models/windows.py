"""Which events each request sees. A window that slides over a run is a banded matrix: one product of it with the run's
events serves all of the run's requests, and no event is copied into every window it stands in."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from zhiyin.models.base import Queries, Runs, taken
from zhiyin.models.layers import picked


@dataclass(frozen=True, slots=True)
class Band:
    """T requests for each of r runs of P events.

    `there` bool [r, P]: where an event is. `happened` int64 [r, T]: how many events came before each request; it sees
    the last `length` of them. `requests` int64 [n]: where in the flat [r·T] each request stands; None where every place
    holds one.

    `back` int64 [r, T, P]: an event's place counted back from the newest that the request sees, 0 the newest, always
    below `length`. `real` bool [r, T, P]: whether the request sees it.
    """

    there: Tensor
    happened: Tensor
    requests: Tensor | None
    length: int
    back: Tensor
    real: Tensor

    @classmethod
    def of_queries(cls, queries: Queries, length: int) -> Self:
        """Each query is a run with one request."""
        queries_count, events = queries.history.shape
        happened = torch.full((queries_count, 1), events, dtype=torch.int64, device=queries.history.device)
        return cls._of(queries.history >= 0, happened, None, length)

    @classmethod
    def of_runs(cls, runs: Runs) -> Self:
        """What `runs.queries()` sees, run by run."""
        return cls._of(runs.history >= 0, runs.places, runs.requests, runs.length)

    @classmethod
    def _of(cls, there: Tensor, happened: Tensor, requests: Tensor | None, length: int) -> Self:
        back = happened[:, :, None] - 1 - torch.arange(there.shape[1], device=there.device)
        real = there[:, None] & (back >= 0) & (back < length)
        return cls(there, happened, requests, length, back.clamp(0, length - 1), real)

    @property
    def counts(self) -> Tensor:
        """int64 [r, T]: how many events each request sees."""
        return self.real.sum(-1)

    def asked(self, values: Tensor) -> Tensor:
        """[n, …] the requests' own of values [r, T, …]."""
        flat = values.flatten(0, 1)
        return flat if self.requests is None else taken(flat, self.requests)

    def windows(self) -> "Windows":
        """Each request's history, place by place."""
        happened, (runs, width) = self.asked(self.happened), self.there.shape
        owners = torch.arange(runs, device=happened.device)[:, None].expand(-1, self.happened.shape[1])
        events = happened + torch.arange(-self.length, 0, device=happened.device)[:, None]
        where = self.asked(owners) * width + events.clamp(min=0)
        return Windows(where, (events >= 0) & self.there.flatten()[where])

    def by_place(self, values: Tensor) -> Tensor:
        """[r, T, h, P] what values [length, h] say of each place: a learned bias, or fixed logits."""
        kinds = torch.arange(values.shape[1], device=values.device)
        return picked(values.flatten(), self.back[:, :, None] * values.shape[1] + kinds[:, None])

    def softmax(self, scores: Tensor) -> Tensor:
        """[r, T, h, P] the softmax of scores [r, T, h, P] over the events that each request sees; 0 elsewhere, and
        everywhere for one that sees none."""
        hidden = ~self.real[:, :, None]
        shares = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1)
        return shares.masked_fill(hidden, 0.0)


@dataclass(frozen=True, slots=True)
class Windows:
    """n histories of L places, the newest event last. `where` int64 [L, n]: which of the flat [r·P] events stands at
    each place; `real` bool [L, n]: whether one does (where not, `where` is any)."""

    where: Tensor
    real: Tensor

    def of(self, values: Tensor) -> Tensor:
        """[L, n, …] from values [r, P, …]; any value where no event is."""
        return taken(values.flatten(0, 1), self.where)

    def split(self, size: int) -> list[Self]:
        """The same in parts of `size` histories."""
        pairs = zip(torch.split(self.where, size, 1), torch.split(self.real, size, 1), strict=True)
        return [type(self)(where, real) for where, real in pairs]


def summed(weights: Tensor, vectors: Tensor) -> Tensor:
    """[r, T, h, d] the sums of vectors [r, P, d] by weights [r, T, h, P]."""
    return torch.bmm(weights.flatten(1, 2), vectors).view(*weights.shape[:3], -1)


def compared(vectors: Tensor, events: Tensor) -> Tensor:
    """[r, T, h, P] the inner products of vectors [r, T, h, d] with events [r, P, d]."""
    return torch.bmm(vectors.flatten(1, 2), events.transpose(1, 2)).view(*vectors.shape[:3], -1)
