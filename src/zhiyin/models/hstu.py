"""HSTU (Zhai et al. 2024, "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations", section 3).

A layer: U, V, Q, K = split(SiLU(f₁(LayerNorm(x)))) (equation 1); A = SiLU(QKᵀ + rab)/L, causal, pointwise instead of a
softmax (equation 2; L is the longest history, as in the authors' code); y = x + f₂(Dropout(LayerNorm(AV) ⊙ U))
(equation 3 and its residual). rab is one learned number a head and distance; the paper's second part of it, by the time
between two events, is left out, since requests carry no times. As in the authors' experiments the inputs also have
position embeddings, counted from the oldest event seen, and user and item vectors have unit length (`normalize`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhiyin.features.schema import Schema
from zhiyin.models.attention import beyond, joined_heads, split_heads
from zhiyin.models.base import RetrievalModel
from zhiyin.models.layers import picked
from zhiyin.models.sequences import Dropout, SequenceTowers, at_last, check_blocks
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class HSTU:
    """`dim`: width of user and item vectors, and of every layer. `blocks`, `heads`: of attention. `normalize`,
    `temperature`: as in YouTubeDNN. `dropout`: share of the inputs and of each layer's output left out in training."""

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    normalize: bool = True
    temperature: float = 0.05
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_towers(self.dim, (), self.temperature, self.dropout)
        check_blocks(self.dim, self.blocks, self.heads)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return SequenceTowers(
            schema,
            catalogue_size,
            self.dim,
            HSTUEncoder(self, schema.history_length),
            normalize=self.normalize,
            temperature=self.temperature,
            dropout=self.dropout,
            positions=True,
        )


class HSTUEncoder(nn.Module):
    """[r, P, d] → [r, P, d]: the layers."""

    def __init__(self, spec: HSTU, length: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HSTULayer(spec, length) for _ in range(spec.blocks))

    def forward(self, events: Tensor) -> Tensor:
        for layer in self.layers:
            events = layer(events)
        return events

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        *lower, top = self.layers
        for layer in lower:
            events = layer(events)
        state: Tensor = top.last(events, counts)  # type: ignore[operator]
        return state


class HSTULayer(nn.Module):
    """One layer, added to what it reads."""

    def __init__(self, spec: HSTU, length: int) -> None:
        super().__init__()
        self.heads, self.length = spec.heads, length
        self.before, self.after = nn.LayerNorm(spec.dim), nn.LayerNorm(spec.dim)
        self.into, self.out = Linear(spec.dim, 4 * spec.dim), Linear(spec.dim, spec.dim)
        self.bias = nn.Parameter(torch.randn(spec.heads * length) * 0.02)  # by head, then by distance
        self.dropout = Dropout(spec.dropout)

    def forward(self, events: Tensor) -> Tensor:
        gates, values, queries, keys = F.silu(self.into(self.before(events))).chunk(4, dim=-1)
        steps = torch.arange(events.shape[1], device=events.device)
        later = steps > steps[:, None]
        bias = self._bias((steps[:, None] - steps).clamp(min=0))
        weights = self._weights(queries, keys, bias, later)
        return events + self._out(joined_heads(weights @ split_heads(values, self.heads)), gates)

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        """[n, d]: the layer's output after each row's last event alone."""
        gates, values, queries, keys = F.silu(self.into(self.before(events))).chunk(4, dim=-1)
        steps = torch.arange(events.shape[1], device=events.device)
        bias = self._bias((counts[:, None] - 1 - steps).clamp(min=0)).transpose(0, 1)[:, :, None]
        later = beyond(counts, events.shape[1])[:, None, None]
        weights = self._weights(at_last(queries, counts)[:, None], keys, bias, later)
        found = joined_heads(weights @ split_heads(values, self.heads))[:, 0]
        return at_last(events, counts) + self._out(found, at_last(gates, counts))

    def _bias(self, distances: Tensor) -> Tensor:
        """[heads, …] of distances int64 […]."""
        firsts = torch.arange(self.heads, device=distances.device) * self.length
        return picked(self.bias, firsts.reshape(-1, *[1] * distances.dim()) + distances)

    def _weights(self, queries: Tensor, keys: Tensor, bias: Tensor, later: Tensor) -> Tensor:
        q, k = split_heads(queries, self.heads), split_heads(keys, self.heads)
        scores = q @ k.transpose(-1, -2) + bias
        return F.silu(scores.masked_fill(later, 0.0)) / self.length

    def _out(self, found: Tensor, gates: Tensor) -> Tensor:
        out: Tensor = self.out(self.dropout(self.after(found) * gates))
        return out


EXAMPLES = (HSTU(dim=16), HSTU(dim=16, blocks=1, heads=1, normalize=False, temperature=1.0))
