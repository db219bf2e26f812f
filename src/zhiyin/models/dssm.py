"""DSSM (Huang et al. 2013, "Learning Deep Structured Semantic Models for Web Search using Clickthrough Data"), as the
two-tower retrieval model of Yi et al. 2019.

Two MLPs that share no parameters; the score is cos(u, v)/τ, and the softmax over positive and negatives is taken of
that. The user's side is the mean of the history's embeddings (its own table), the profile and the context; the item's
side is its embedding and its features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.features.schema import Schema
from zhiyin.models.base import Items, Queries, RetrievalModel, Runs, request_columns
from zhiyin.models.inputs import Embeddings, Inputs
from zhiyin.models.layers import MLP, HistoryPooling, Pooling, normalized
from zhiyin.models.youtube_dnn import check_towers, check_weight


@dataclass(frozen=True, slots=True)
class DSSM:
    """`dim`: width of user and item vectors, and of the embeddings below them. `hidden`: each tower's layers.
    `temperature`: every score is cos(u, v) / temperature. `pooling`, `weight`: how a history is averaged, as in
    YouTubeDNN. `share_items`: the history reads the item tower's embeddings (the towers' MLPs stay apart).
    """

    dim: int = 64
    hidden: tuple[int, ...] = (256, 128)
    pooling: Pooling = "positions"
    weight: str = ""
    share_items: bool = False
    temperature: float = 0.1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_towers(self.dim, self.hidden, self.temperature, self.dropout)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """Raises `SpecError` when `weight` names no one-number event feature."""
        check_weight(self.weight, schema)
        return DSSMTowers(self, schema, catalogue_size)


class DSSMTowers(RetrievalModel):
    """The two towers. A gate is what each tower's inputs, side by side, pass through on their way into its MLP: the
    item's (or pooled history's) vector, then the features in their order."""

    def __init__(
        self,
        spec: DSSM,
        schema: Schema,
        catalogue_size: int,
        user_gate: nn.Module | None = None,
        item_gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.items = Embeddings(catalogue_size, spec.dim)
        self.watched = self.items if spec.share_items else Embeddings(catalogue_size, spec.dim)
        self.pooling = HistoryPooling(spec.pooling, schema.history_length)
        self.request = Inputs((*schema.user, *schema.context))
        self.attributes = Inputs(schema.item)
        self.user_gate, self.item_gate = user_gate or nn.Identity(), item_gate or nn.Identity()
        self.user_mlp = MLP(spec.dim + self.request.width, spec.hidden, spec.dim, spec.dropout)
        self.item_mlp = MLP(spec.dim + self.attributes.width, spec.hidden, spec.dim, spec.dropout)
        self.order_free = spec.pooling == "mean"

    def user_vectors(self, queries: Queries) -> Tensor:
        weights = queries.columns[self.spec.weight][..., 0] if self.spec.weight else None
        return self._users(self.pooling(self.watched(queries.history), queries.history, weights), queries.columns)

    def run_vectors(self, *parts: Runs) -> Tensor:
        return self._users(torch.cat([self._pooled(runs) for runs in parts]), request_columns(parts))

    def _pooled(self, runs: Runs) -> Tensor:
        weights = runs.past[self.spec.weight][..., 0] if self.spec.weight else None
        return self.pooling.over_runs(self.watched(runs.history), runs, weights)

    def _users(self, pooled: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        inputs = [pooled]
        if self.request.width:
            inputs.append(self.request(columns))
        users = normalized(self.user_mlp(self.user_gate(torch.cat(inputs, dim=-1))))
        return (users / self.spec.temperature)[:, None]

    def item_vectors(self, items: Items) -> Tensor:
        inputs = [self.items(items.rows)]
        if self.attributes.width:
            inputs.append(self.attributes(items.columns))
        return normalized(self.item_mlp(self.item_gate(torch.cat(inputs, dim=-1))))


EXAMPLES = (
    DSSM(dim=16, hidden=(32,)),
    DSSM(dim=16, hidden=(32,), pooling="mean", share_items=True),
)
