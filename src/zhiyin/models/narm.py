"""NARM (Li et al. 2017, "Neural Attentive Session-based Recommendation").

A GRU gives h₁ … hₜ. Global encoder: c_g = hₜ. Local encoder: α_tj = vᵀσ(A₁hₜ + A₂h_j), c_l = Σ_{j≤t} α_tj h_j
(equations 6–8; no softmax). c = [c_g ⧺ c_l], and the score of item i is emb_iᵀ B c (equation 10), so Bc is the user's
vector. Departures: user and item vectors have unit length (`normalize`); the GRU's reset gate stands behind its matrix;
every event of a history is learned from, in one pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.attention import additive, additive_last
from zhiyin.models.base import RetrievalModel
from zhiyin.models.sequences import Dropout, SequenceTowers, at_last
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class NARM:
    """`dim`: width of user and item vectors. `units`: of the GRU and its attention. `normalize`, `temperature`: as in
    YouTubeDNN. `dropout`: share of the inputs and of c left out in training."""

    dim: int = 64
    units: int = 64
    normalize: bool = True
    temperature: float = 0.05
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_towers(self.dim, (), self.temperature, self.dropout)
        if self.units < 1:
            raise SpecError(f"{self.units}", where=".units", expected="at least 1")

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return SequenceTowers(
            schema,
            catalogue_size,
            self.dim,
            NARMEncoder(self),
            normalize=self.normalize,
            temperature=self.temperature,
            dropout=self.dropout,
        )


class NARMEncoder(nn.Module):
    """[r, P, d] → [r, P, d]: B [c_g ⧺ c_l] after each event."""

    def __init__(self, spec: NARM) -> None:
        super().__init__()
        self.gru = nn.GRU(spec.dim, spec.units, batch_first=True)
        self.of_last = Linear(spec.units, spec.units, bias=False)
        self.of_each = Linear(spec.units, spec.units, bias=False)
        self.v = nn.Parameter(torch.randn(spec.units) / spec.units)
        self.dropout = Dropout(spec.dropout)
        self.bilinear = Linear(2 * spec.units, spec.dim, bias=False)

    def forward(self, events: Tensor) -> Tensor:
        states, _ = self.gru(events)
        local = additive(self.of_last(states), self.of_each(states), self.v) @ states
        return self._out(states, local)

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        states, _ = self.gru(events)
        final = at_last(states, counts)
        weights = additive_last(self.of_last(final), self.of_each(states), self.v, counts)
        return self._out(final, (weights[:, None] @ states)[:, 0])

    def _out(self, final: Tensor, local: Tensor) -> Tensor:
        vectors: Tensor = self.bilinear(self.dropout(torch.cat([final, local], dim=-1)))
        return vectors


EXAMPLES = (NARM(dim=16, units=20),)
