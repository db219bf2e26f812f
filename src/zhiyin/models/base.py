"""What a model is: two towers that meet only in an inner product."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.features.schema import Schema


@dataclass(frozen=True, slots=True)
class Queries:
    """All the user tower may see of n requests.

    `history` int64 [n, L] item rows, newest last, `UNKNOWN` on the left. `columns`: encoded user and context features,
    codes int64 [n] (a bag [n, length]) or values float32 [n, width]; event features have one more axis, [n, L, …].
    """

    history: Tensor
    columns: Mapping[str, Tensor]


def taken(values: Tensor, places: Tensor) -> Tensor:
    """[…, *] the rows of values [v, *] at places int64 […]. Unlike values[places] its gradient adds up in a fixed order
    (the same bits every time), and here eight times faster."""
    found = values.index_select(0, places.flatten())
    return found.view(*places.shape, *values.shape[1:])


@dataclass(frozen=True, slots=True)
class Runs:
    """The same of n requests that share their histories: what training sees. Each event of a run is read once.

    A run is a stretch of one user's events. `history` int64 [r, P]: their item rows, oldest first, `UNKNOWN` after the
    last. `past`: encoded event features [r, P, …]. A request comes when so many events of its run have happened:
    `places` int64 [r, T], 0 where a run has fewer than T requests; its history is the last `length` of those events.
    `requests` int64 [n]: where in the flat [r·T] each request stands. `columns`: encoded user and context features of
    the requests, [n, …]. `own` int64 [r, T], where order means nothing: the place of the event that is asked for
    among those that have happened, which its request must not see; -1 where it is not among them.
    """

    history: Tensor
    places: Tensor
    requests: Tensor
    columns: Mapping[str, Tensor]
    past: Mapping[str, Tensor]
    length: int
    own: Tensor | None = None

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def owners(self) -> Tensor:
        """int64 [n]: the run of each request."""
        return torch.div(self.requests, self.places.shape[1], rounding_mode="floor")

    @property
    def happened(self) -> Tensor:
        """int64 [n]: how many events of its run came before each request."""
        return self.places.flatten()[self.requests]

    def newest(self, values: Tensor) -> Tensor:
        """[n, …] from values [r, P, …]: what stands at each request's newest event; zero where nothing happened."""
        found = taken(values.flatten(0, 1), self.owners * values.shape[1] + (self.happened - 1).clamp(min=0))
        return torch.where((self.happened > 0).reshape(-1, *[1] * (found.dim() - 1)), found, 0.0)

    def windows(self, values: Tensor, nothing: float = 0.0) -> Tensor:
        """[n, length, …] from values [r, P, …]: what stands at each request's history, newest last, `nothing` on the
        left where there is none."""
        events = self.happened[:, None] + torch.arange(-self.length, 0, device=values.device)
        real = events >= 0
        flat = self.owners[:, None] * values.shape[1] + events.clamp(min=0)
        found = taken(values.flatten(0, 1), flat)
        return torch.where(real.reshape(real.shape + (1,) * (found.dim() - 2)), found, nothing)

    def queries(self) -> Queries:
        """The requests one by one, as the service sees them."""
        history = self.windows(self.history, UNKNOWN)
        past = {
            name: self.windows(values, 0.0 if values.is_floating_point() else UNKNOWN)
            for name, values in self.past.items()
        }
        return Queries(history, {**self.columns, **past})


def request_columns(parts: Sequence[Runs]) -> dict[str, Tensor]:
    """Encoded user and context features [n, …] of the requests of all parts, one part after the other."""
    return {name: torch.cat([runs.columns[name] for runs in parts]) for name in parts[0].columns}


@dataclass(frozen=True, slots=True)
class Items:
    """All the item tower may see of m items. `rows` int64 [m], `UNKNOWN` for a new item; `columns` as in `Queries`."""

    rows: Tensor
    columns: Mapping[str, Tensor]


class RetrievalModel(nn.Module):
    """Two towers. Scores are inner products, larger is better; normalisation and temperature are the towers' own
    business, so that what is trained is what is served. h = 1 unless the model keeps several interests.

    `sequential`: the model reads a run in one pass, so a run may not be longer than a history. `served`: in training a
    negative's score is that of the user's best interest for it, as at serving, and not that of the vector which the
    example's positive trains. `order_free`: a history in another order is the same to the model, and it heeds the
    `own` of runs.
    """

    sequential: ClassVar[bool] = False
    served: bool = False
    order_free: bool = False

    def user_vectors(self, queries: Queries) -> Tensor:
        """float32 [n, h, d]."""
        raise NotImplementedError

    def run_vectors(self, *parts: Runs) -> Tensor:
        """float32 [n, h, d]: what `user_vectors` gives for the `queries()` of each part, one part after the other, with
        the work shared where a model can."""
        return torch.cat([self.user_vectors(runs.queries()) for runs in parts])

    def item_vectors(self, items: Items) -> Tensor:
        """float32 [m, d]."""
        raise NotImplementedError

    def label_vectors(self, users: Tensor, positives: Tensor) -> Tensor:
        """float32 [n, d]: the user vector that is trained on each positive, from users [n, h, d] and positives [n, d].
        With one interest, that interest."""
        return users[:, 0]


class ModelSpec(Protocol):
    """A model's parameters, and how it is built."""

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """The two towers with fresh weights, drawn from torch's current generator. Raises `SpecError` where the schema
        lacks what the model needs."""
        ...
