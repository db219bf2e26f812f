"""What a model is: two towers that meet only in an inner product."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from zhiyin.features.schema import Schema


@dataclass(frozen=True, slots=True)
class Queries:
    """All the user tower may see of n requests.

    `history` int64 [n, L] item rows, newest last, `UNKNOWN` on the left. `columns`: encoded user and context features,
    codes int64 [n] (a bag [n, length]) or values float32 [n, width]; event features have one more axis, [n, L, …].
    """

    history: Tensor
    columns: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Items:
    """All the item tower may see of m items. `rows` int64 [m], `UNKNOWN` for a new item; `columns` as in `Queries`."""

    rows: Tensor
    columns: Mapping[str, Tensor]


class RetrievalModel(nn.Module):
    """Two towers. Scores are inner products, larger is better; normalisation and temperature are the towers' own
    business, so that what is trained is what is served. h = 1 unless the model keeps several interests."""

    def user_vectors(self, queries: Queries) -> Tensor:
        """float32 [n, h, d]."""
        raise NotImplementedError

    def item_vectors(self, items: Items) -> Tensor:
        """float32 [m, d]."""
        raise NotImplementedError

    def label_vectors(self, users: Tensor, positives: Tensor) -> Tensor:
        """float32 [n, d]: the user vector that is trained on each positive, from users [n, h, d] and positives [n, d].
        With one interest, that interest."""
        return users[:, 0]


class ModelSpec(Protocol):
    """A model's parameters, and how it is built."""

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """The two towers with fresh weights, drawn from torch's current generator. Raises `SpecError` where the schema
        lacks what the model needs."""
        ...
