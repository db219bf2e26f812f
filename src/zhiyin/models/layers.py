"""Layers that several models share."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zhiyin.models.base import Runs, taken
from zhiyin.products import Linear

SHORTEST = 1e-12
"""Below this length a vector is taken for zero."""

Pooling = Literal["mean", "positions"]


class MLP(nn.Module):
    """Linear and ReLU, `hidden` times; then linear to `out`."""

    def __init__(self, width: int, hidden: Sequence[int], out: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [Linear(width, size), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, Linear(width, out))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                # He et al. 2015: torch's own start makes every layer's output smaller than its input
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[…, out] from […, width]."""
        if inputs.dim() == 2 or torch.compiler.is_exporting():
            outputs: Tensor = self.layers(inputs)
            return outputs
        flat: Tensor = self.layers(inputs.flatten(0, -2))  # ReLU in place wants no view before it
        return flat.view(*inputs.shape[:-1], -1)


class HistoryPooling(nn.Module):
    """The (weighted) mean of a history's vectors; zero for an empty one.

    "mean" weighs every event alike; "positions" learns one weight for each place, counted back from the newest, so that
    padding on the left changes nothing. `weights` from the log, not negative, multiply either.
    """

    def __init__(self, kind: Pooling, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(length)) if kind == "positions" else None

    def forward(self, vectors: Tensor, history: Tensor, weights: Tensor | None = None) -> Tensor:
        """[n, d] from vectors [n, L, d]; history [n, L] rows, `UNKNOWN` where nothing is; weights [n, L]."""
        back = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
        shares = self._shares(back, history >= 0, weights)
        pooled: Tensor = torch.bmm(shares[:, None], vectors)[:, 0]
        return pooled

    def over_runs(self, vectors: Tensor, runs: Runs, weights: Tensor | None = None) -> Tensor:
        """[n, d] for each request of the runs, from their events' vectors [r, P, d]; weights [r, P]. A request's own
        event counts nothing.

        A window that slides over a run is a banded matrix: one product serves all of a run's requests, whatever the
        weights. Its rows depend on how many events have happened alone, so they are worked out once for each count.
        """
        events = torch.arange(vectors.shape[1], device=vectors.device)
        back = torch.arange(-1, len(events), device=events.device)[:, None] - events  # one row for each count of events
        real = (back >= 0) & (back < runs.length)
        shares = taken(self._shares(back.clamp(0, runs.length - 1), real), runs.places)
        if runs.own is not None:
            shares = _of_sum_one(shares * (events != runs.own[..., None]))
        if weights is not None:
            shares = _of_sum_one(shares * weights[:, None].clamp(min=0))
        return taken(torch.bmm(shares, vectors).flatten(0, 1), runs.requests)

    def _shares(self, back: Tensor, real: Tensor, weights: Tensor | None = None) -> Tensor:
        """[…, L] what each event counts, of sum 1 or 0. back: places counted from the newest, 0 the newest."""
        shares = real.float()
        if weights is not None:
            shares = shares * weights.clamp(min=0)
        if self.positions is not None:
            shares = shares * picked(self.positions.exp(), back.clamp(max=len(self.positions) - 1))
        return _of_sum_one(shares)


def _of_sum_one(shares: Tensor) -> Tensor:
    total = shares.sum(-1, keepdim=True)
    return shares / torch.where(total > 0, total, torch.ones_like(total))


class _Picked(torch.autograd.Function):
    """values[places], with a backward pass that adds up by `index_add_`: 15 times faster than indexing's own here."""

    @staticmethod
    def forward(context: Any, values: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(places)
        context.length = len(values)
        return values[places]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = context.saved_tensors
        return gradient.new_zeros(context.length).index_add_(0, places.flatten(), gradient.flatten()), None


def picked(values: Tensor, places: Tensor) -> Tensor:
    """[…] the number of values [l] at each of places int64 […]."""
    if torch.compiler.is_exporting() or not torch.is_grad_enabled():
        return values[places]
    found: Tensor = _Picked.apply(values, places)  # type: ignore[no-untyped-call]
    return found


def normalized(vectors: Tensor) -> Tensor:
    """[…, d] at unit length; a zero vector stays zero."""
    if torch.compiler.is_exporting() or not torch.is_grad_enabled():
        return vectors / _length(vectors)
    unit: Tensor = _Unit.apply(vectors)  # type: ignore[no-untyped-call]
    return unit


class _Unit(torch.autograd.Function):
    """v / ‖v‖, with a backward pass in three passes over the vectors where autograd's own takes ten."""

    @staticmethod
    def forward(context: Any, vectors: Tensor) -> Tensor:
        length = _length(vectors)
        unit = vectors / length
        context.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        unit, length = context.saved_tensors
        along = torch.linalg.vecdot(unit, gradient)[..., None]
        return torch.addcmul(gradient, unit, along, value=-1).div_(length)


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = vectors.norm(dim=-1, keepdim=True).clamp(min=SHORTEST)
    return length
