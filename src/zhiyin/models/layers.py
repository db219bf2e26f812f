"""Layers that several models share."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["mean", "positions"]


class MLP(nn.Module):
    """Linear and ReLU, `hidden` times; then linear to `out`."""

    def __init__(self, width: int, hidden: Sequence[int], out: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, out))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                # He et al. 2015: torch's own start makes every layer's output smaller than its input
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, out] from [n, width]."""
        outputs: Tensor = self.layers(inputs)
        return outputs


class HistoryPooling(nn.Module):
    """[n, d] the (weighted) mean of a history's vectors; zero for an empty one.

    "mean" weighs every event alike; "positions" learns one weight for each place, counted back from the newest, so that
    padding on the left changes nothing. `weights` from the log multiply either.
    """

    def __init__(self, kind: Pooling, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(length)) if kind == "positions" else None

    def forward(self, vectors: Tensor, history: Tensor, weights: Tensor | None = None) -> Tensor:
        """vectors [n, L, d]; history [n, L] rows, `UNKNOWN` where nothing is; weights [n, L], not negative."""
        shares = (history >= 0).to(vectors.dtype)
        if weights is not None:
            shares = shares * weights.clamp(min=0)
        if self.positions is not None:
            back = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
            shares = shares * self.positions.exp()[back.clamp(max=len(self.positions) - 1)]
        total = shares.sum(1, keepdim=True)
        shares = shares / torch.where(total > 0, total, torch.ones_like(total))
        pooled: Tensor = torch.einsum("nl,nld->nd", shares, vectors)
        return pooled


def normalized(vectors: Tensor) -> Tensor:
    """[…, d] at unit length; a zero vector stays zero."""
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit
