"""STAMP (Liu et al. 2018, "STAMP: Short-Term Attention/Memory Priority Model for Session-based Recommendation").

m_s = mean of x₁ … xₜ, m_t = xₜ; α_i = w₀ᵀσ(W₁x_i + W₂xₜ + W₃m_s + b_a), m_a = Σ_{i≤t} α_i x_i (equations 7–8; no
softmax); h_s = tanh(W_s m_a + b_s), h_t = tanh(W_t m_t + b_t); an item's score is ⟨h_s, h_t, x_i⟩ = Σ h_s h_t x_i
(equations 3–6), so the user's vector is h_s ⊙ h_t. Departures: no σ stands between that product and the softmax (it
would keep every score between 0 and 1, and it is no inner product); user and item vectors have unit length
(`normalize`); every event of a history is learned from, in one pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.features.schema import Schema
from zhiyin.models.attention import additive, additive_last, beyond
from zhiyin.models.base import RetrievalModel
from zhiyin.models.sequences import SequenceTowers, at_last
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class STAMP:
    """`dim`: width of user and item vectors. `normalize`, `temperature`: as in YouTubeDNN. `dropout`: share of the
    inputs left out in training."""

    dim: int = 64
    normalize: bool = True
    temperature: float = 0.05
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_towers(self.dim, (), self.temperature, self.dropout)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return SequenceTowers(
            schema,
            catalogue_size,
            self.dim,
            STAMPEncoder(self.dim),
            normalize=self.normalize,
            temperature=self.temperature,
            dropout=self.dropout,
        )


class STAMPEncoder(nn.Module):
    """[r, P, d] → [r, P, d]: h_s ⊙ h_t after each event."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_each = Linear(dim, dim, bias=False)
        self.of_last = Linear(dim, dim, bias=False)
        self.of_mean = Linear(dim, dim)
        self.w = nn.Parameter(torch.randn(dim) / dim)
        self.general = Linear(dim, dim)
        self.current = Linear(dim, dim)

    def forward(self, events: Tensor) -> Tensor:
        counts = torch.arange(1, events.shape[1] + 1, device=events.device)[:, None]
        mean = events.cumsum(1) / counts
        weights = additive(self.of_last(events) + self.of_mean(mean), self.of_each(events), self.w)
        return self._out(weights @ events, events)

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        final, real = at_last(events, counts), ~beyond(counts, events.shape[1])
        mean = (events * real[..., None]).sum(1) / counts.clamp(min=1)[:, None]
        weights = additive_last(self.of_last(final) + self.of_mean(mean), self.of_each(events), self.w, counts)
        return self._out((weights[:, None] @ events)[:, 0], final)

    def _out(self, attended: Tensor, final: Tensor) -> Tensor:
        return torch.tanh(self.general(attended)) * torch.tanh(self.current(final))


EXAMPLES = (STAMP(dim=16),)
