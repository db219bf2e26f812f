"""SINE (Tan et al. 2021, "Sparse-Interest Network for Sequential Recommendation", section 3).

A pool of concepts C serves all users; a history activates the few that are nearest to its attention-pooled vector z:
s = C z, the K with the greatest s, each scaled by σ(s). Behaviour t belongs to concept k with
P(k|t) = softmax over k of LN(W3 e_t)ᵀ LN(C_k), and matters to it with P(t|k) = softmax over t of
w_kᵀ tanh(W_k e_t) + a learned bias of its place, counted back from the newest event. An interest is
LN(Σ_t P(k|t) P(t|k) W3 e_t).

The paper's user has one vector: the interests weighed by softmax over k of cos(c, φ_k) / τ, where c, the concept that
the user turns to, is the attention-pooled sequence of intentions x̂_t = Σ_k P(k|t) C_k (`aggregate`). Without it the K
interests are searched each for itself, and trained as MIND's are.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel, taken
from zhiyin.models.interests import Head, Interests, InterestTowers, check_interests
from zhiyin.models.layers import normalized
from zhiyin.models.windows import Band, compared, summed
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class SINE:
    """`dim`: width of user and item vectors. `interests`: how many of the `concepts` a history activates. `aggregate`:
    one vector for a user, by `tau`, instead of one for each interest. `hidden`, `sharpness`, `temperature`, `dropout`:
    as in `Head`."""

    dim: int = 64
    interests: int = 4
    concepts: int = 50
    aggregate: bool = False
    tau: float = 0.1
    hidden: tuple[int, ...] = (128,)
    sharpness: float = math.inf
    temperature: float = 0.1
    dropout: float = 0.0
    served: bool = True
    common: bool = True

    def __post_init__(self) -> None:
        check_interests(self.interests, self.dim, self.head)
        if self.concepts < self.interests:
            raise SpecError(f"{self.concepts}", where=".concepts", expected=f"at least interests, {self.interests}")
        if not self.tau > 0:
            raise SpecError(f"{self.tau}", where=".tau", expected="a number above 0")

    @property
    def head(self) -> Head:
        return Head(self.hidden, True, self.sharpness, self.temperature, self.dropout, self.served, self.common)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return InterestTowers(schema, catalogue_size, self.dim, self.head, Sparse(self, schema.history_length))


class Sparse(nn.Module):
    """Concepts, and the interests that they find in a history. `places` [length, K]: the bias of P(t|k)."""

    def __init__(self, spec: SINE, length: int) -> None:
        super().__init__()
        self.spec = spec
        self.concepts = nn.Parameter(torch.randn(spec.concepts, spec.dim) * spec.dim**-0.5)
        self.activating = Attention(spec.dim, 1)
        self.belonging = Linear(spec.dim, spec.dim, bias=False)
        nn.init.eye_(self.belonging.weight)
        self.behaviour_norm, self.concept_norm = nn.LayerNorm(spec.dim), nn.LayerNorm(spec.dim)
        self.mattering = Attention(spec.dim, spec.interests)
        self.places = nn.Parameter(torch.zeros(length, spec.interests))
        self.interest_norm = nn.LayerNorm(spec.dim)
        self.turning = Attention(spec.dim, 1) if spec.aggregate else None

    def forward(self, events: Tensor, band: Band) -> Interests:
        concepts = activated(self._pooled(events, band), self.concepts, self.spec.interests)
        mapped = self.belonging(events)
        belongs = compared(self.concept_norm(concepts), self.behaviour_norm(mapped)).softmax(2)
        matters = band.softmax(self.mattering(events).transpose(1, 2)[:, None] + band.by_place(self.places))
        interests = self.interest_norm(summed(belongs * matters, mapped))
        if self.turning is not None:
            interests = self._aggregated(interests, concepts, belongs, band)
        return Interests(band.asked(interests))

    def _pooled(self, events: Tensor, band: Band) -> Tensor:
        """[r, T, d] what a history is about."""
        scores = self.activating(events).transpose(1, 2)[:, None].expand(-1, band.real.shape[1], -1, -1)
        return summed(band.softmax(scores), events)[:, :, 0]

    def _aggregated(self, interests: Tensor, concepts: Tensor, belongs: Tensor, band: Band) -> Tensor:
        """[r, T, 1, d] the interests, each as likely as the user turns to it next."""
        assert self.turning is not None  # noqa: S101 – the caller asked
        intentions = belongs.transpose(2, 3) @ concepts
        shares = band.softmax(self.turning(intentions).transpose(2, 3))
        next_concept = (shares * belongs).sum(-1, keepdim=True).mul(concepts).sum(2, keepdim=True)
        nearness = (normalized(interests) * normalized(next_concept)).sum(-1, keepdim=True)
        return ((nearness / self.spec.tau).softmax(2) * interests).sum(2, keepdim=True)


class Attention(nn.Module):
    """w_kᵀ tanh(W_k e) for each of `heads` k."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wide = Linear(dim, heads * dim, bias=False)
        self.narrow = nn.Parameter(torch.randn(heads, dim) * dim**-0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """[…, heads] from vectors […, d]."""
        inner = torch.tanh(self.wide(vectors))
        return (inner.view(*vectors.shape[:-1], *self.narrow.shape) * self.narrow).sum(-1)


def activated(pooled: Tensor, pool: Tensor, count: int) -> Tensor:
    """[…, count, d] the concepts of pool [M, d] with the greatest s = C z for each of pooled […, d], times σ(s)."""
    scores, chosen = (pooled @ pool.T).topk(count, dim=-1)
    return taken(pool, chosen) * torch.sigmoid(scores)[..., None]


EXAMPLES = (
    SINE(dim=16, interests=3, concepts=8, hidden=(32,)),
    SINE(dim=16, interests=2, concepts=5, hidden=(32,), aggregate=True),
)
