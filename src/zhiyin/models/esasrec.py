"""eSASRec (Tikhonovich et al. 2025, "eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion"):
SASRec's shifted sequences and sampled softmax with the blocks of LiGR (Borisyuk et al. 2025, "From Features to
Transformers: Redefining Ranking for Scalable Impact").

A LiGR block is x + σ(xW_g) ⊙ Dropout(g(LayerNorm(x))): a learned gate on each sublayer; g is multi-head causal
attention with an output projection, then SwiGLU (Shazeer 2020), (SiLU(xW) ⊙ xV)W₂. Inputs, positions, the last
LayerNorm, unit vectors and attention without dropout are those of `sasrec`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.attention import attended, attended_last
from zhiyin.models.base import RetrievalModel
from zhiyin.models.sequences import Dropout, SequenceTowers, at_last, check_blocks
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class ESASRec:
    """`dim`: width of user and item vectors, and of every layer but SwiGLU's, which is `expansion` times as wide.
    `blocks`, `heads`: of attention. `normalize`, `temperature`: as in YouTubeDNN. `dropout`: share of the inputs and of
    each layer's output left out in training."""

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    expansion: int = 4
    normalize: bool = True
    temperature: float = 0.05
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_towers(self.dim, (), self.temperature, self.dropout)
        check_blocks(self.dim, self.blocks, self.heads)
        if self.expansion < 1:
            raise SpecError(f"{self.expansion}", where=".expansion", expected="at least 1")

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return SequenceTowers(
            schema,
            catalogue_size,
            self.dim,
            LiGREncoder(self),
            normalize=self.normalize,
            temperature=self.temperature,
            dropout=self.dropout,
            positions=True,
        )


class LiGREncoder(nn.Module):
    """[r, P, d] → [r, P, d]: the blocks, then LayerNorm."""

    def __init__(self, spec: ESASRec) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LiGRBlock(spec) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, events: Tensor) -> Tensor:
        for block in self.blocks:
            events = block(events)
        states: Tensor = self.norm(events)
        return states

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        *lower, top = self.blocks
        for block in lower:
            events = block(events)
        state: Tensor = self.norm(top.last(events, counts))  # type: ignore[operator]
        return state


class LiGRBlock(nn.Module):
    """Attention, then SwiGLU, each added through its gate to what it reads."""

    def __init__(self, spec: ESASRec) -> None:
        super().__init__()
        dim, inner = spec.dim, spec.expansion * spec.dim
        self.heads = spec.heads
        self.before_attention, self.before_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = Linear(dim, 3 * dim), Linear(dim, dim)
        self.attention_gate, self.network_gate = Linear(dim, dim), Linear(dim, dim)
        self.into, self.back = Linear(dim, 2 * inner, bias=False), Linear(inner, dim, bias=False)
        self.dropout = Dropout(spec.dropout)

    def forward(self, events: Tensor) -> Tensor:
        queries, keys, values = self.qkv(self.before_attention(events)).chunk(3, dim=-1)
        return self._rest(events, attended(queries, keys, values, self.heads))

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        """[n, d]: the block's output after each row's last event alone."""
        queries, keys, values = self.qkv(self.before_attention(events)).chunk(3, dim=-1)
        found = attended_last(at_last(queries, counts), keys, values, counts, self.heads)
        return self._rest(at_last(events, counts), found)

    def _rest(self, states: Tensor, found: Tensor) -> Tensor:
        states = states + torch.sigmoid(self.attention_gate(states)) * self.dropout(self.out(found))
        gate, value = self.into(self.before_network(states)).chunk(2, dim=-1)
        network: Tensor = self.dropout(self.back(F.silu(gate) * value))
        return states + torch.sigmoid(self.network_gate(states)) * network


EXAMPLES = (ESASRec(dim=16, expansion=2),)
