"""MIND (Li et al. 2019, "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall").

Behaviours are routed to interests: all by one bilinear map S, from logits that are drawn once and never trained, so
that training, export and serving agree. A user with few behaviours has fewer interests: K' = max(1, min(K, ⌊log2 of
their number⌋)). An interest that a user has not got is a copy of the first. Departures that were measured to help: a
vote counts by its recency (`recency`), S starts as `gain` times the identity, and what `InterestTowers` says. The gain
is how sharply behaviours choose between interests, and nothing learns it: the last round's sums, through which alone S
is trained, are squashed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel
from zhiyin.models.interests import Head, Interests, InterestTowers, check_interests
from zhiyin.models.routing import interests_alive, route
from zhiyin.models.windows import Band
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class MIND:
    """`dim`: width of user and item vectors. `interests`: K, the most a user has; `adaptive`: fewer for a short
    history. `rounds` of routing, from logits of standard deviation `spread`, by a map that starts as `gain` times the
    identity. `recency`: learned weights of votes by place. `hidden`, `residual`, `sharpness` (the paper's p),
    `temperature`, `dropout`: as in `Head`.
    """

    dim: int = 64
    interests: int = 4
    rounds: int = 3
    spread: float = 1.0
    gain: float = 4.0
    adaptive: bool = True
    recency: bool = True
    hidden: tuple[int, ...] = (128,)
    residual: bool = True
    sharpness: float = math.inf
    temperature: float = 0.1
    dropout: float = 0.0
    served: bool = True
    common: bool = True

    def __post_init__(self) -> None:
        check_interests(self.interests, self.dim, self.head)
        if self.rounds < 1:
            raise SpecError(f"{self.rounds}", where=".rounds", expected="at least 1")
        if not self.gain > 0:
            raise SpecError(f"{self.gain}", where=".gain", expected="a number above 0")
        if not self.spread > 0:
            raise SpecError(
                f"{self.spread}",
                where=".spread",
                expected="a number above 0",
                remedy="From equal logits, and by one map S, all interests would be the same for ever.",
            )

    @property
    def head(self) -> Head:
        return Head(
            self.hidden, self.residual, self.sharpness, self.temperature, self.dropout, self.served, self.common
        )

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return InterestTowers(schema, catalogue_size, self.dim, self.head, Routed(self, schema.history_length))


class Routed(nn.Module):
    """Behaviour-to-interest routing. `logits` [length, K]: a place's, counted back from the newest event."""

    logits: Tensor

    def __init__(self, spec: MIND, length: int) -> None:
        super().__init__()
        self.spec = spec
        self.map = Linear(spec.dim, spec.dim, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(spec.gain * torch.eye(spec.dim))
        self.recency = nn.Parameter(torch.zeros(length, 1)) if spec.recency else None
        self.register_buffer("logits", torch.randn(length, spec.interests) * spec.spread)

    def forward(self, events: Tensor, band: Band) -> Interests:
        votes = self.map(events)
        weights = band.real.to(votes.dtype)
        if self.recency is not None:
            weights = weights * band.by_place(self.recency.exp())[:, :, 0]
        most = self.spec.interests if self.spec.adaptive else 1
        alive = interests_alive(band.counts, most).expand(-1, -1, self.spec.interests)
        vectors = route(votes, weights, band.by_place(self.logits), alive, self.spec.rounds)
        return Interests(band.asked(vectors), band.asked(alive) if self.spec.adaptive else None)


EXAMPLES = (MIND(dim=16, interests=3, hidden=(32,)),)
