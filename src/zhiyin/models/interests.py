"""What models that keep several interests share: all but the way from a history to its interests.

History and catalogue read one embedding table. An extractor makes h vectors of a history; [interest ⧺ profile ⧺
context] goes through an MLP; the score of an item is the best of the interests'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.base import Feature
from zhiyin.features.schema import Schema
from zhiyin.models.base import Items, Queries, RetrievalModel, Runs, request_columns, taken
from zhiyin.models.inputs import Embeddings, Inputs
from zhiyin.models.layers import MLP, HistoryPooling, normalized
from zhiyin.models.windows import Band
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class Interests:
    """`vectors` [n, h, d]; `alive` bool [n, h]: which of them a user has, the first always (None: all)."""

    vectors: Tensor
    alive: Tensor | None = None

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Those of all parts, one part after the other."""
        alive = [one.alive for one in parts if one.alive is not None]
        return cls(torch.cat([one.vectors for one in parts]), torch.cat(alive) if alive else None)


class Extractor(Protocol):
    """Makes interests of histories."""

    def __call__(self, events: Tensor, band: Band) -> Interests:
        """The interests of each of the band's n requests, from its runs' events [r, P, d]."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """What becomes of interests. `hidden`: the layers of the MLP over [interest ⧺ profile ⧺ context]. `residual`: it
    adds to the interest instead of replacing it. `sharpness`: an example trains softmax(sharpness · scores) of the
    interests, `inf` the best one alone. `temperature`: every score is cos / temperature. `dropout`: as in YouTubeDNN.
    `served`: a negative's score is that of the user's best interest for it, as at serving; without, that of the vector
    which the positive trains, as in the papers. `common`: the direction of the whole history, pooled by learned weights
    of its places, is added to each interest's, as much of it as is learned.
    """

    hidden: tuple[int, ...]
    residual: bool
    sharpness: float
    temperature: float
    dropout: float
    served: bool
    common: bool


def check_interests(interests: int, dim: int, head: Head) -> None:
    """Raises `SpecError` for what `check_towers` refuses, for no interest, and for a sharpness below 0."""
    check_towers(dim, head.hidden, head.temperature, head.dropout)
    if interests < 1:
        raise SpecError(f"{interests}", where=".interests", expected="at least 1")
    if not head.sharpness >= 0:
        raise SpecError(f"{head.sharpness}", where=".sharpness", expected="0 or above; inf trains the best interest")


class InterestTowers(RetrievalModel):
    """The two towers around an extractor.

    Departures from the papers, measured to help: unit vectors with a temperature, the MLP's residual, and what `Head`
    calls served and common. Item features are added to an item's embedding, event features to the embedding of the item
    in the history.
    """

    def __init__(self, schema: Schema, catalogue_size: int, dim: int, head: Head, extractor: nn.Module) -> None:
        super().__init__()
        self.head, self.length, self.served = head, schema.history_length, head.served
        self.items = Embeddings(catalogue_size, dim)
        self.extractor = extractor
        self.request = Inputs((*schema.user, *schema.context))
        self.mlp = MLP(dim + self.request.width, head.hidden, dim, head.dropout)
        self.from_events = _Projected(schema.event, dim) if schema.event else None
        self.from_attributes = _Projected(schema.item, dim) if schema.item else None
        self.dropout = nn.Dropout(head.dropout)
        self.common = _Common(schema.history_length) if head.common else None

    def user_vectors(self, queries: Queries) -> Tensor:
        events = self._events(queries.history, queries.columns)
        common = None if self.common is None else self.common(self.common.pooling(events, queries.history))
        return self._users(self.extractor(events, Band.of_queries(queries, self.length)), common, queries.columns)

    def run_vectors(self, *parts: Runs) -> Tensor:
        events = [self._events(runs.history, runs.past) for runs in parts]
        found = [self.extractor(one, Band.of_runs(runs)) for one, runs in zip(events, parts, strict=True)]
        common = None
        if self.common is not None:
            pooled = [self.common.pooling.over_runs(one, runs) for one, runs in zip(events, parts, strict=True)]
            common = self.common(torch.cat(pooled))
        return self._users(Interests.together(found), common, request_columns(parts))

    def item_vectors(self, items: Items) -> Tensor:
        vectors: Tensor = self.items(items.rows)
        if self.from_attributes is not None:
            vectors = vectors + self.from_attributes(items.columns)
        return normalized(vectors)

    def label_vectors(self, users: Tensor, positives: Tensor) -> Tensor:
        """Label-aware attention (Li et al. 2019, equation 6). Their softmax(pow(scores, p)) takes a negative score's
        sign away for an even p; here it is softmax(p · scores), which has the same limits: the mean for p = 0, the best
        interest for p = ∞. An interest that repeats the first counts for nothing."""
        if users.shape[1] == 1:
            return users[:, 0]
        scores = torch.bmm(users, positives[:, :, None])[..., 0]
        if self.head.sharpness == torch.inf:
            first = torch.arange(0, scores.numel(), scores.shape[1], device=users.device)
            return taken(users.flatten(0, 1), first + scores.argmax(1))
        repeated = (users[:, 1:] == users[:, :1]).all(-1)
        scores = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(repeated, -torch.inf)], dim=1)
        attention = (self.head.sharpness * scores).softmax(1)
        return torch.bmm(attention[:, None], users)[:, 0]

    def _events(self, history: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        events: Tensor = self.items(history)
        return events if self.from_events is None else events + self.from_events(columns)

    def _users(self, found: Interests, common: Tensor | None, columns: Mapping[str, Tensor]) -> Tensor:
        interests = found.vectors
        if common is not None:
            interests = normalized(interests) + common[:, None]
        inputs = [self.dropout(interests)]
        if self.request.width:
            inputs.append(self.request(columns)[:, None].expand(-1, interests.shape[1], -1))
        users: Tensor = self.mlp(torch.cat(inputs, dim=-1))
        users = normalized(users + interests if self.head.residual else users) / self.head.temperature
        if found.alive is None:
            return users
        # an interest that a user has not got repeats the first: no maximum over interests notices, at serving or here
        return torch.where(found.alive[..., None], users, users[:, :1])


class _Common(nn.Module):
    """What all interests of a user have in common: the direction of the pooled history, at a learned length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.pooling = HistoryPooling("positions", length)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, pooled: Tensor) -> Tensor:
        """[n, d] from the pooled histories [n, d]."""
        return self.weight * normalized(pooled)


class _Projected(nn.Module):
    """Features as something to add to an embedding."""

    def __init__(self, features: tuple[Feature, ...], dim: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.linear = Linear(self.inputs.width, dim, bias=False)

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """[…, dim]."""
        vectors: Tensor = self.linear(self.inputs(columns))
        return vectors
