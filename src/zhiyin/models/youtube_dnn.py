"""YouTubeDNN (Covington, Adams & Sargin 2016, "Deep Neural Networks for YouTube Recommendations", section 3).

The user's vector is an MLP over the mean of the last watches' embeddings, the profile and the context (example age
among it); an item's vector is a row of the output softmax. Departures, each an option that is on because it was
measured to help: the output rows are the history's own embeddings (`share_items`), the mean is weighted by learned
positions (`pooling`), the MLP adds to the pooled history instead of replacing it (`residual`), and both vectors have
unit length (`normalize`). Item features, which the paper's items do not have, are added to the output rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.base import Values
from zhiyin.features.schema import Schema
from zhiyin.models.base import Items, Queries, RetrievalModel, Runs, request_columns
from zhiyin.models.inputs import Embeddings, Inputs
from zhiyin.models.layers import MLP, HistoryPooling, Pooling, normalized
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class YouTubeDNN:
    """`dim`: width of user and item vectors. `hidden`: the user MLP's layers. `pooling`: "positions" learns weights by
    recency, "mean" is the paper's. `weight`: a one-number event feature that weighs the mean (watch time, say).
    `share_items`: history and output use one embedding table. `residual`: the user's vector is the pooled history plus
    what the MLP says. `normalize`: unit vectors, which go with a `temperature` (every score is divided by it) of about
    0.05–0.1; without them one of 1 is in place. `dropout`: share of the pooled history and of hidden units left out in
    training.
    """

    dim: int = 64
    hidden: tuple[int, ...] = (256, 128)
    pooling: Pooling = "positions"
    weight: str = ""
    share_items: bool = True
    residual: bool = True
    normalize: bool = True
    temperature: float = 0.1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_towers(self.dim, self.hidden, self.temperature, self.dropout)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """Raises `SpecError` when `weight` names no one-number event feature."""
        check_weight(self.weight, schema)
        return YouTubeDNNTowers(self, schema, catalogue_size)


class YouTubeDNNTowers(RetrievalModel):
    """The two towers."""

    def __init__(self, spec: YouTubeDNN, schema: Schema, catalogue_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.items = Embeddings(catalogue_size, spec.dim)
        self.watched = self.items if spec.share_items else Embeddings(catalogue_size, spec.dim)
        self.pooling = HistoryPooling(spec.pooling, schema.history_length)
        self.request = Inputs((*schema.user, *schema.context))
        self.mlp = MLP(spec.dim + self.request.width, spec.hidden, spec.dim, spec.dropout)
        self.attributes = Inputs(schema.item) if schema.item else None
        self.from_attributes = Linear(self.attributes.width, spec.dim, bias=False) if self.attributes else None
        self.dropout = nn.Dropout(spec.dropout)
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
        inputs = [self.dropout(pooled)]
        if self.request.width:
            inputs.append(self.request(columns))
        users: Tensor = self.mlp(torch.cat(inputs, dim=-1))
        if self.spec.residual:
            users = users + pooled
        if self.spec.normalize:
            users = normalized(users)
        return (users / self.spec.temperature)[:, None]

    def item_vectors(self, items: Items) -> Tensor:
        vectors: Tensor = self.items(items.rows)
        if self.attributes is not None and self.from_attributes is not None:
            vectors = vectors + self.from_attributes(self.attributes(items.columns))
        return normalized(vectors) if self.spec.normalize else vectors


def check_towers(dim: int, hidden: tuple[int, ...], temperature: float, dropout: float) -> None:
    """Raises `SpecError` for sizes below 1, a temperature that is not positive, a dropout outside [0, 1)."""
    if dim < 1:
        raise SpecError(f"{dim}", where=".dim", expected="at least 1")
    if any(size < 1 for size in hidden):
        raise SpecError(f"{list(hidden)}", where=".hidden", expected="sizes of at least 1")
    if not temperature > 0:
        raise SpecError(f"{temperature}", where=".temperature", expected="a number above 0")
    if not 0 <= dropout < 1:
        raise SpecError(f"{dropout}", where=".dropout", expected="at least 0 and below 1")


def check_weight(weight: str, schema: Schema) -> None:
    """Raises `SpecError` unless `weight` is empty or names an event feature of one number."""
    numbers = [f.name for f in schema.event if f.encoding == Values(1)]
    if weight and weight not in numbers:
        raise SpecError(
            f"'{weight}' is not a one-number event feature",
            where="model.weight",
            expected=f"one of {', '.join(numbers)}" if numbers else "an event feature, and the schema has none",
            remedy='Add [[features.event]] use = "numeric:Numeric" with scale = "none".',
        )


EXAMPLES = (
    YouTubeDNN(dim=16, hidden=(32,)),
    YouTubeDNN(dim=16, hidden=(), pooling="mean", share_items=False, residual=False, normalize=False, temperature=1.0),
)
