"""The two-tower model of Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations", section 4: YouTube's neural retrieval.

The user's side is the seed (the newest event), the pooled history, the profile and the context; the item's side is its
embedding and its features. One embedding table serves the candidate, the seed and the history. Both towers are MLPs
with ReLU whose outputs have unit length; scores are divided by τ. The rest of the paper is in the recipe: in-batch
softmax with logQ (`losses:SampledSoftmax`), frequencies from the stream (`streaming:Streaming`), and rewards
(`training.weight`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zhiyin.features.schema import Schema
from zhiyin.models.base import Items, Queries, RetrievalModel, Runs, request_columns
from zhiyin.models.inputs import Embeddings, Inputs
from zhiyin.models.layers import MLP, HistoryPooling, Pooling, normalized
from zhiyin.models.youtube_dnn import check_towers, check_weight


@dataclass(frozen=True, slots=True)
class YouTubeSBC:
    """`dim`: width of user and item vectors, and of the embeddings below them. `hidden`: each tower's layers.
    `temperature`: every score is cos(u, v) / temperature. `pooling`, `weight`: how a history is averaged, as in
    YouTubeDNN ("mean" is the paper's). `dropout`: share of hidden units left out in training."""

    dim: int = 64
    hidden: tuple[int, ...] = (256, 128)
    pooling: Pooling = "positions"
    weight: str = ""
    temperature: float = 0.1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_towers(self.dim, self.hidden, self.temperature, self.dropout)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """Raises `SpecError` when `weight` names no one-number event feature."""
        check_weight(self.weight, schema)
        return YouTubeSBCTowers(self, schema, catalogue_size)


class YouTubeSBCTowers(RetrievalModel):
    """The two towers."""

    def __init__(self, spec: YouTubeSBC, schema: Schema, catalogue_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.items = Embeddings(catalogue_size, spec.dim)
        self.pooling = HistoryPooling(spec.pooling, schema.history_length)
        self.request = Inputs((*schema.user, *schema.context))
        self.attributes = Inputs(schema.item)
        self.user_mlp = MLP(2 * spec.dim + self.request.width, spec.hidden, spec.dim, spec.dropout)
        self.item_mlp = MLP(spec.dim + self.attributes.width, spec.hidden, spec.dim, spec.dropout)

    def user_vectors(self, queries: Queries) -> Tensor:
        weights = queries.columns[self.spec.weight][..., 0] if self.spec.weight else None
        watched = self.items(queries.history)
        seed = torch.where(queries.history[:, -1:] >= 0, watched[:, -1], 0.0)
        return self._users(seed, self.pooling(watched, queries.history, weights), queries.columns)

    def run_vectors(self, *parts: Runs) -> Tensor:
        seeds, pooled = zip(*[self._seed_and_pooled(runs) for runs in parts], strict=True)
        return self._users(torch.cat(seeds), torch.cat(pooled), request_columns(parts))

    def _seed_and_pooled(self, runs: Runs) -> tuple[Tensor, Tensor]:
        weights = runs.past[self.spec.weight][..., 0] if self.spec.weight else None
        watched = self.items(runs.history)
        return runs.newest(watched), self.pooling.over_runs(watched, runs, weights)

    def _users(self, seed: Tensor, pooled: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        inputs = [seed, pooled]
        if self.request.width:
            inputs.append(self.request(columns))
        users = normalized(self.user_mlp(torch.cat(inputs, dim=-1)))
        return (users / self.spec.temperature)[:, None]

    def item_vectors(self, items: Items) -> Tensor:
        inputs = [self.items(items.rows)]
        if self.attributes.width:
            inputs.append(self.attributes(items.columns))
        return normalized(self.item_mlp(torch.cat(inputs, dim=-1)))


EXAMPLES = (YouTubeSBC(dim=16, hidden=(32,)),)
