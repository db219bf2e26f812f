"""GRU4Rec (Hidasi et al. 2016, "Session-based Recommendations with Recurrent Neural Networks").

hₜ = GRU(xₜ, hₜ₋₁) (equations 2–5), h₀ = 0; the user's vector is a linear map of the last layer's hₜ, the score its
inner product with the item's embedding. Departures: the reset gate stands behind its matrix, r ⊙ Uh for U(r ⊙ h), as in
every fast implementation; items are embedded, and the output's rows are the input's (Hidasi & Karatzoglou 2018,
"constrained embedding"); no tanh stands on the scores, and vectors have unit length (`normalize`); whole histories are
learned from in one pass, with any loss and negatives, instead of session-parallel mini-batches with BPR or TOP1.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel
from zhiyin.models.sequences import Dropout, SequenceTowers, at_last
from zhiyin.models.youtube_dnn import check_towers
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class GRU4Rec:
    """`dim`: width of user and item vectors. `hidden`: units of each recurrent layer, one number a layer.
    `normalize`, `temperature`: as in YouTubeDNN. `dropout`: share of the inputs and of the last layer's units left out
    in training."""

    dim: int = 64
    hidden: tuple[int, ...] = (128,)
    normalize: bool = True
    temperature: float = 0.05
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_towers(self.dim, self.hidden, self.temperature, self.dropout)
        if not self.hidden:
            raise SpecError("[]", where=".hidden", expected="at least one layer")

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        return SequenceTowers(
            schema,
            catalogue_size,
            self.dim,
            GRUEncoder(self),
            normalize=self.normalize,
            temperature=self.temperature,
            dropout=self.dropout,
        )


class GRUEncoder(nn.Module):
    """[r, P, d] → [r, P, d]: the layers, then linear."""

    def __init__(self, spec: GRU4Rec) -> None:
        super().__init__()
        widths = (spec.dim, *spec.hidden)
        self.layers = nn.ModuleList(nn.GRU(below, above, batch_first=True) for below, above in pairwise(widths))
        self.dropout = Dropout(spec.dropout)
        self.out = Linear(spec.hidden[-1], spec.dim)

    def forward(self, events: Tensor) -> Tensor:
        states: Tensor = self.out(self.dropout(self._states(events)))
        return states

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        state: Tensor = self.out(self.dropout(at_last(self._states(events), counts)))
        return state

    def _states(self, events: Tensor) -> Tensor:
        for layer in self.layers:
            events, _ = layer(events)
        return events


EXAMPLES = (GRU4Rec(dim=16, hidden=(20, 24)),)
