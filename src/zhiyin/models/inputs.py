"""Encoded features become vectors: a learned embedding for each code, values as they are, side by side."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zhiyin.features.base import Codes, Feature, Values


class Embeddings(nn.Module):
    """A learned vector for each code 0 … cardinality-1, and one more for `UNKNOWN`, zero until something trains it."""

    def __init__(self, cardinality: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(cardinality + 1, dim, sparse=True)
        nn.init.normal_(self.table.weight, std=dim**-0.5)
        with torch.no_grad():
            self.table.weight[-1] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """[…, dim] the vectors of codes int64 […]."""
        vectors: Tensor = self.table(torch.where(codes < 0, self.table.num_embeddings - 1, codes))
        return vectors


class Inputs(nn.Module):
    """Features by name → [n, …, width], in their order. A bag is the mean of its known vectors, zero when empty."""

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self.encodings: dict[str, Codes | Values] = {f.name: f.encoding for f in features}
        self.embeddings = nn.ModuleDict(
            {
                _key(name): Embeddings(encoding.cardinality, encoding.dim)
                for name, encoding in self.encodings.items()
                if isinstance(encoding, Codes)
            }
        )
        self.width = sum(e.dim if isinstance(e, Codes) else e.width for e in self.encodings.values())

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """[n, …, width]; raises `KeyError` for a feature whose column is not there."""
        return torch.cat([self._vectors(name, columns[name]) for name in self.encodings], dim=-1)

    def _vectors(self, name: str, column: Tensor) -> Tensor:
        encoding = self.encodings[name]
        if isinstance(encoding, Values):
            return column
        vectors: Tensor = self.embeddings[_key(name)](column)
        if not encoding.bag:
            return vectors
        known = (column >= 0).to(vectors.dtype)[..., None]
        return (vectors * known).sum(-2) / known.sum(-2).clamp(min=1)


def _key(name: str) -> str:
    return "feature_" + name.replace(".", "·")  # a module's name may hold no dot, nor be one of ModuleDict's own
