"""SASRec (Kang & McAuley 2018, "Self-Attentive Sequential Recommendation").

Inputs are item plus position embeddings (equation 1). A block is x + Dropout(g(LayerNorm(x))) (section III.C) for g
causal self-attention, softmax(QKᵀ/√d)V without an output projection (equations 2–3), then for g = ReLU(xW₁ + b₁)W₂ + b₂
(equation 4); a last LayerNorm gives the user's vector, and the score is its inner product with the item's embedding
(equation 6). Departures: user and item vectors have unit length (`normalize`), which learns faster; positions are
counted from the oldest event that is seen, not from the newest, so that one pass serves every request of a run;
attention weights are not dropped out, since fused attention is 1.5 times faster without; the loss is any loss: with the
paper's, one negative and BCE, the model is a known-weak baseline (Klenitskiy & Vasilev 2023).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from zhiyin.features.schema import Schema
from zhiyin.models.attention import attended, attended_last
from zhiyin.models.base import RetrievalModel
from zhiyin.models.sequences import Dropout, SequenceTowers, at_last, check_blocks
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class SASRec:
    """`dim`: width of user and item vectors, and of every layer. `blocks`, `heads`: of attention. `normalize`,
    `temperature`: as in YouTubeDNN. `dropout`: share of the inputs and of each layer's output left out in training."""

    dim: int = 64
    blocks: int = 2
    heads: int = 1
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
            SASRecEncoder(self),
            normalize=self.normalize,
            temperature=self.temperature,
            dropout=self.dropout,
            positions=True,
        )


class SASRecEncoder(nn.Module):
    """[r, P, d] → [r, P, d]: the blocks, then LayerNorm."""

    def __init__(self, spec: SASRec) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SASRecBlock(spec.dim, spec.heads, spec.dropout) for _ in range(spec.blocks))
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


class SASRecBlock(nn.Module):
    """Attention, then the point-wise network, each added to what it reads."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.inner, self.outer = Linear(dim, dim), Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, events: Tensor) -> Tensor:
        queries, keys, values = self.qkv(self.before_attention(events)).chunk(3, dim=-1)
        return self._network(events + self.dropout(attended(queries, keys, values, self.heads)))

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        """[n, d]: the block's output after each row's last event alone."""
        queries, keys, values = self.qkv(self.before_attention(events)).chunk(3, dim=-1)
        found = attended_last(at_last(queries, counts), keys, values, counts, self.heads)
        return self._network(at_last(events, counts) + self.dropout(found))

    def _network(self, states: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.outer(self.dropout(F.relu(self.inner(self.before_network(states))))))
        return states + out


EXAMPLES = (SASRec(dim=16, heads=2), SASRec(dim=16, blocks=1, normalize=False, temperature=1.0))
