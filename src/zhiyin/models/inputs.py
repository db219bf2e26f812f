"""Encoded features become vectors: a learned embedding for each code, values as they are, side by side."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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
        rows = torch.where(codes < 0, self.table.num_embeddings - 1, codes)
        parts = getattr(self.table.weight, _PARTS, None)
        vectors: Tensor = self.table(rows) if parts is None else _Looked.apply(self.table.weight, rows, parts)  # type: ignore[no-untyped-call]
        return vectors


_PARTS = "parts_of_gradient"


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """What the block's backward passes give to embedding tables comes together once, at its end. Autograd would add
    each lookup's sparse gradient to all before it, which copies them all again and again."""
    tables = [one.table.weight for one in model.modules() if isinstance(one, Embeddings)]
    for table in tables:
        setattr(table, _PARTS, [])
    try:
        yield
        for table in tables:
            parts: list[tuple[Tensor, Tensor]] = getattr(table, _PARTS)
            if parts:
                rows, slopes = (torch.cat(some) for some in zip(*parts, strict=True))
                table.grad = torch.sparse_coo_tensor(rows[None], slopes, table.shape, check_invariants=False)
    finally:
        for table in tables:
            delattr(table, _PARTS)


class _Looked(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, table: Tensor, rows: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        context.save_for_backward(rows)
        context.parts = parts
        return table.index_select(0, rows.flatten()).view(*rows.shape, -1)

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> tuple[None, None, None]:
        (rows,) = context.saved_tensors
        context.parts.append((rows.flatten(), slopes.reshape(rows.numel(), -1)))
        return None, None, None


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
