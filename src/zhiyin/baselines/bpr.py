"""BPR-MF (Rendle et al. 2009): a factorisation that ranks what a user met above what they did not."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zhiyin.baselines.histories import training_matrix
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import SpecError


@dataclass(frozen=True, slots=True)
class BPR:
    """max Σ log σ(x_ui − x_uj) − `penalty` · ‖Θ‖², x_ui = p_u · q_i + b_i, i met by u and j drawn from what was not.

    Steps by Adagrad (the paper's plain SGD needs its rate tuned for every log); `epochs` over all pairs.
    """

    dim: int = 64
    epochs: int = 30
    rate: float = 0.1
    penalty: float = 0.002
    batch_size: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.dim, self.epochs, self.batch_size) < 1 or self.rate <= 0 or self.penalty < 0:
            raise SpecError(
                f"dim = {self.dim}, epochs = {self.epochs}, batch_size = {self.batch_size}, rate = {self.rate}, "
                f"penalty = {self.penalty}",
                expected="the first three ≥ 1, rate > 0, penalty ≥ 0",
            )

    def fit(self, data: Prepared, split: Split) -> "BPRScorer":
        matrix = training_matrix(data, split)
        met = np.sort(matrix.tocoo().row.astype(np.int64) * matrix.shape[1] + matrix.tocoo().col)
        known, pairs = torch.from_numpy(np.diff(matrix.indptr) > 0), torch.from_numpy(met)
        generator = torch.Generator().manual_seed(self.seed)
        users, items = (torch.randn(size, self.dim, generator=generator) * 0.1 for size in matrix.shape)
        bias = torch.zeros(matrix.shape[1], 1)
        tables = [users * known[:, None], items, bias]
        sums = [torch.full_like(table, 1e-8) for table in tables]
        for _ in range(self.epochs):
            for part in torch.split(pairs[torch.randperm(len(pairs), generator=generator)], self.batch_size):
                self._step(tables, sums, part, pairs, generator)
        return BPRScorer(data, tables[0], torch.cat(tables[1:], 1))

    def _step(
        self, tables: list[Tensor], sums: list[Tensor], part: Tensor, pairs: Tensor, generator: torch.Generator
    ) -> None:
        catalogue = len(tables[1])
        user, positive = part // catalogue, part % catalogue
        negative = torch.randint(catalogue, positive.shape, generator=generator)
        drawn = user * catalogue + negative
        there = torch.searchsorted(pairs, drawn).clamp(max=len(pairs) - 1)
        fair = (pairs[there] != drawn).float()  # a negative that the user met teaches nothing
        p, q, r = tables[0][user], tables[1][positive], tables[1][negative]
        margin = (p * (q - r)).sum(1) + (tables[2][positive] - tables[2][negative])[:, 0]
        pull = (torch.sigmoid(-margin) * fair)[:, None]
        decay = self.penalty * fair[:, None]
        _adagrad(tables[0], sums[0], user, pull * (q - r) - decay * p, self.rate)
        both = torch.cat([positive, negative])
        _adagrad(tables[1], sums[1], both, torch.cat([pull * p - decay * q, -pull * p - decay * r]), self.rate)
        _adagrad(tables[2], sums[2], both, torch.cat([pull, -pull]), self.rate)


def _adagrad(table: Tensor, sums: Tensor, rows: Tensor, gains: Tensor, rate: float) -> None:
    """One step up the gradient for the rows of a batch, their repetitions summed."""
    there, places = torch.unique(rows, return_inverse=True)
    total = torch.zeros(len(there), table.shape[1]).index_add_(0, places, gains)
    sums[there] += total**2
    table[there] += rate * total / sums[there].sqrt()


class BPRScorer:
    """A user's factors as training left them; one without training events is a zero vector, and gets what is liked by
    all (the biases)."""

    def __init__(self, data: Prepared, users: Tensor, items: Tensor) -> None:
        self._data, self._users, self.items = data, F.pad(users, (0, 1), value=1.0), items

    def users(self, events: Events) -> Tensor:
        return self._users[torch.from_numpy(self._data.events.users[events].astype(np.int64))][:, None]

    def scores(self, events: Events) -> Tensor:
        return self.users(events)[:, 0] @ self.items.T


EXAMPLES = (BPR(dim=8, epochs=60),)
