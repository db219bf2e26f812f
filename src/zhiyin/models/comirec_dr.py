"""ComiRec-DR (Cen et al. 2020, "Controllable Multi-Interest Framework for Recommendation", section 3.2).

Dynamic routing from zero logits; each interest hears a behaviour through a map of its own, W_ij for place i (counted
back from the newest event) and interest j. Trained on the best interest. W_ij starts, at all places alike, as `gain`
times the identity plus noise of its interest's own: the noise tells interests apart, the identity lets votes point to
where their items are from the start (from random rotations it was seen to learn hardly anything in the same time).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel
from zhiyin.models.interests import Head, Interests, InterestTowers, check_interests
from zhiyin.models.routing import squash
from zhiyin.models.windows import Band, Windows

PART = 256
"""Requests whose votes are held at once in training: they are L·h vectors each."""


@dataclass(frozen=True, slots=True)
class ComiRecDR:
    """`dim`: width of user and item vectors. `interests`: h of each user. `rounds` of routing, by maps that start as
    `gain` times (the identity + `noise` times a random matrix that keeps lengths). `hidden`, `temperature`, `dropout`:
    as in `Head`."""

    dim: int = 64
    interests: int = 4
    rounds: int = 3
    gain: float = 4.0
    noise: float = 0.1
    hidden: tuple[int, ...] = (128,)
    temperature: float = 0.1
    dropout: float = 0.0
    served: bool = True
    common: bool = True

    def __post_init__(self) -> None:
        check_interests(self.interests, self.dim, self.head)
        if self.rounds < 1:
            raise SpecError(f"{self.rounds}", where=".rounds", expected="at least 1")
        for name in ("gain", "noise"):
            if not getattr(self, name) > 0:
                raise SpecError(f"{getattr(self, name)}", where=f".{name}", expected="a number above 0")

    @property
    def head(self) -> Head:
        return Head(self.hidden, True, torch.inf, self.temperature, self.dropout, self.served, self.common)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return InterestTowers(schema, catalogue_size, self.dim, self.head, RoutedByPlace(self, schema.history_length))


class RoutedByPlace(nn.Module):
    """Routing with a map for each place and interest: `maps` [length, d, h·d], the last place the newest."""

    def __init__(self, spec: ComiRecDR, length: int) -> None:
        super().__init__()
        self.spec = spec
        strange = torch.randn(spec.dim, spec.interests, spec.dim) * spec.dim**-0.5
        maps = spec.gain * (torch.eye(spec.dim)[:, None] + spec.noise * strange)
        self.maps = nn.Parameter(maps.flatten(1).repeat(length, 1, 1))

    def forward(self, events: Tensor, band: Band) -> Interests:
        whole = band.windows()
        parts = whole.split(PART) if self.training else [whole]
        return Interests(torch.cat([self._routed(events, part) for part in parts]))

    def _routed(self, events: Tensor, windows: Windows) -> Tensor:
        votes = torch.bmm(windows.of(events), self.maps).view(*windows.real.shape, self.spec.interests, -1)
        return route_by_place(votes, windows.real, self.spec.rounds)


def route_by_place(votes: Tensor, real: Tensor, rounds: int) -> Tensor:
    """[n, h, d] interests from votes [L, n, h, d], W_ij e_i of place i; real bool [L, n].

    Each round: softmax over interests, Σ_i w_ij W_ij e_i, squash, agreement added to the logits. Gradients come through
    the last round's sums alone.
    """
    fixed = votes.detach()
    logits = torch.zeros_like(fixed[..., 0])
    for _ in range(rounds - 1):
        interests = squash(_summed(logits.softmax(2) * real[..., None], fixed))
        logits = logits + (fixed * interests).sum(-1)
    return squash(_summed(logits.softmax(2) * real[..., None], votes))


def _summed(weights: Tensor, votes: Tensor) -> Tensor:
    """[n, h, d] Σ over places of weights [L, n, h] · votes [L, n, h, d]."""
    return (weights[..., None] * votes).sum(0)


EXAMPLES = (ComiRecDR(dim=16, interests=3, hidden=(32,)),)
