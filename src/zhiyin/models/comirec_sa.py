"""ComiRec-SA (Cen et al. 2020, "Controllable Multi-Interest Framework for Recommendation", section 3.2).

A = softmax(W2ᵀ tanh(W1 (H + P))) over the places of a history, W1 4d × d; the interests are V = A H. P is a learned
vector for each place, counted back from the newest event; padding is masked before the softmax. Trained on the best
interest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel
from zhiyin.models.interests import Head, Interests, InterestTowers, check_interests
from zhiyin.models.windows import Band, Windows
from zhiyin.products import Linear

WIDER = 4
"""The attention's hidden layer is so many times as wide as an embedding."""

PART = 64
"""Requests whose hidden layers are held at once in training: they are L·4d numbers each."""


@dataclass(frozen=True, slots=True)
class ComiRecSA:
    """`dim`: width of user and item vectors. `interests`: h of each user. `hidden`, `temperature`, `dropout`: as in
    `Head`."""

    dim: int = 64
    interests: int = 4
    hidden: tuple[int, ...] = (128,)
    temperature: float = 0.1
    dropout: float = 0.0
    served: bool = True
    common: bool = True

    def __post_init__(self) -> None:
        check_interests(self.interests, self.dim, self.head)

    @property
    def head(self) -> Head:
        return Head(self.hidden, True, torch.inf, self.temperature, self.dropout, self.served, self.common)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return InterestTowers(schema, catalogue_size, self.dim, self.head, Attended(self, schema.history_length))


class Attended(nn.Module):
    """One attention for each interest. `places` [length, d], the last the newest."""

    def __init__(self, spec: ComiRecSA, length: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(length, spec.dim) * spec.dim**-0.5)
        self.wide = Linear(spec.dim, WIDER * spec.dim, bias=False)
        self.narrow = Linear(WIDER * spec.dim, spec.interests, bias=False)

    def forward(self, events: Tensor, band: Band) -> Interests:
        places, seen = self.wide(self.places)[:, None], self.wide(events)  # W1 (H + P), each event and place once
        whole = band.windows()
        parts = whole.split(PART) if self.training else [whole]
        return Interests(torch.cat([self._attended(events, seen, places, part) for part in parts]))

    def _attended(self, events: Tensor, seen: Tensor, places: Tensor, windows: Windows) -> Tensor:
        shares = attention(self.narrow(torch.tanh(windows.of(seen) + places)), windows.real)
        return torch.einsum("lnh,lnd->nhd", shares, windows.of(events))


def attention(scores: Tensor, real: Tensor) -> Tensor:
    """[L, n, h] the softmax over places of scores [L, n, h]; real bool [L, n]: no share where nothing is, and none
    anywhere for an empty history."""
    hidden = ~real[..., None]
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(0).masked_fill(hidden, 0.0)


EXAMPLES = (ComiRecSA(dim=16, interests=3, hidden=(32,)),)
