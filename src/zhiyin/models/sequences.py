"""What models that read a history event by event share: everything but the encoder between its inputs and its states.

Events stand from the oldest on, at the left: under a causal encoder what fills the right then changes nothing, so a run
is read in one pass for all of its requests, and a served history, shifted to the left, gives the same.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.base import Items, Queries, RetrievalModel, Runs, request_columns
from zhiyin.models.inputs import Embeddings, Inputs
from zhiyin.models.layers import MLP, normalized
from zhiyin.products import Linear


class Encoder(Protocol):
    """A causal map: what comes out at an event depends on it and the ones before it."""

    def __call__(self, events: Tensor) -> Tensor:
        """[r, P, d] the state after each event, from events [r, P, d], oldest first."""
        ...

    def last(self, events: Tensor, counts: Tensor) -> Tensor:
        """[n, d] the state after the last of each row's first counts int64 [n] events; after the first one for 0."""
        ...


class SequenceTowers(RetrievalModel):
    """User tower: events → `encoder` → the state where the request comes; item tower: a row of the same table.

    An event's input is its item's embedding, scaled by √d (Vaswani et al. 2017, section 3.4), plus a linear map of the
    event features. An empty history has a learned state. Profile and context join at the top, by an MLP over
    [state ⧺ features] that adds to the state. Item features are added to the item's output row; the user tower, which
    sees of an item its row alone, does not know them.
    """

    sequential: ClassVar[bool] = True

    def __init__(
        self,
        schema: Schema,
        catalogue_size: int,
        dim: int,
        encoder: nn.Module,
        *,
        normalize: bool,
        temperature: float,
        dropout: float,
        positions: bool = False,
    ) -> None:
        """`encoder`: an `Encoder`. `positions`: a learned vector for each place, counted from the oldest event seen, is
        added to the inputs. `normalize`, `temperature`: as in YouTubeDNN. `dropout`: of the encoder's inputs."""
        super().__init__()
        self.dim, self.length = dim, schema.history_length
        self.normalize, self.temperature = normalize, temperature
        self.items = Embeddings(catalogue_size, dim)
        self.happenings = Inputs(schema.event)
        self.from_happenings = Linear(self.happenings.width, dim, bias=False) if schema.event else None
        self.positions = nn.Parameter(torch.randn(self.length, dim) * dim**-0.5) if positions else None
        self.dropout = Dropout(dropout)
        self.encoder = encoder
        self.start = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.request = Inputs((*schema.user, *schema.context))
        self.join = MLP(dim + self.request.width, (2 * dim,), dim) if self.request.width else None
        self.attributes = Inputs(schema.item)
        self.from_attributes = Linear(self.attributes.width, dim, bias=False) if schema.item else None

    def user_vectors(self, queries: Queries) -> Tensor:
        counts = (queries.history >= 0).sum(1)
        history = shifted(queries.history, counts, self.length)
        past = {name: shifted(queries.columns[name], counts, self.length) for name in self.happenings.encodings}
        states: Tensor = self.encoder.last(self._events(history, past), counts)  # type: ignore[operator]
        return self._users(states, counts, queries.columns)

    def run_vectors(self, *parts: Runs) -> Tensor:
        states = torch.cat([self._states(runs) for runs in parts])
        return self._users(states, torch.cat([runs.happened for runs in parts]), request_columns(parts))

    def _states(self, runs: Runs) -> Tensor:
        """[n, d] the state where each request comes."""
        states: Tensor = self.encoder(self._events(runs.history, runs.past))
        places = runs.owners * states.shape[1] + (runs.happened - 1).clamp(min=0)
        return states.flatten(0, 1).index_select(0, places)

    def item_vectors(self, items: Items) -> Tensor:
        vectors: Tensor = self.items(items.rows)
        if self.from_attributes is not None:
            vectors = vectors + self.from_attributes(self.attributes(items.columns))
        return normalized(vectors) if self.normalize else vectors

    def _events(self, history: Tensor, past: Mapping[str, Tensor]) -> Tensor:
        """[r, P, d] the encoder's inputs."""
        events: Tensor = self.items(history) * self.dim**0.5
        if self.from_happenings is not None:
            events = events + self.from_happenings(self.happenings(past))
        if self.positions is not None:
            events = events + self.positions[: events.shape[1]]
        dropped: Tensor = self.dropout(events)
        return dropped

    def _users(self, states: Tensor, counts: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        users = torch.where(counts[:, None] > 0, states, self.start)
        if self.join is not None:
            users = users + self.join(torch.cat([users, self.request(columns)], dim=-1))
        if self.normalize:
            users = normalized(users)
        return (users / self.temperature)[:, None]


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) by random bytes: three times faster on a CPU than by a random number for each
    entry. `share` is kept to the nearest 256th, and what is left is scaled by exactly what that leaves."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.lost = round(256 * share)

    def forward(self, values: Tensor) -> Tensor:
        """The values, or in training a random part of them, scaled up to the same mean."""
        if not self.training or self.lost == 0:
            return values
        words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64, device=values.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self.lost
        return values * kept.to(values.dtype).mul_(256 / (256 - self.lost))


def shifted(values: Tensor, counts: Tensor, length: int) -> Tensor:
    """[n, L ≤ length, …] the last `length` of values [n, W, …] whose real ones, counts [n] of them, stand on the right:
    now from the left on. What comes after them is of no meaning."""
    values = values[:, -length:]
    width = values.shape[1]
    steps = torch.arange(width, device=values.device)
    places = (steps + (width - counts.clamp(max=width))[:, None]).clamp(max=width - 1)
    places = places.reshape(places.shape + (1,) * (values.dim() - 2))
    return values.gather(1, places.expand(values.shape))


def at_last(states: Tensor, counts: Tensor) -> Tensor:
    """[n, d] of states [n, P, d], the one of each row's last event; the first for counts 0."""
    places = (counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, places)[:, 0]


def check_blocks(dim: int, blocks: int, heads: int) -> None:
    """Raises `SpecError` for sizes below 1, and for heads that do not divide `dim`."""
    if blocks < 1:
        raise SpecError(f"{blocks}", where=".blocks", expected="at least 1")
    if heads < 1 or dim % heads:
        raise SpecError(f"{heads}", where=".heads", expected=f"a divisor of dim = {dim}")
