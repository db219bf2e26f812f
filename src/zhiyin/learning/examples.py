"""A data set as the towers see it: events become queries and positives, rows become items, tensors on one device."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.errors import DataError
from zhiyin.features.base import Encoded
from zhiyin.features.schema import Schema, encode
from zhiyin.learning.base import Batch
from zhiyin.models.base import Items, Queries


class Examples:
    """What a fitted schema makes of a prepared data set. Every feature is encoded once; memory is O(events)."""

    def __init__(self, data: Prepared, schema: Schema, *, end: int, device: torch.device, weight: str = "") -> None:
        """`end`: when training ends (milliseconds), for the examples' age. `weight`: the event column that holds each
        example's reward; every example weighs 1 without one. Raises `DataError` for a reward that is no weight."""
        self.data, self.schema, self.device, self._end = data, schema, device, end
        self._users = self._tensors(encode(schema.user, data.user_table, "users"))
        self._item_columns = self._tensors(encode(schema.item, data.item_table, "items"))
        self._past = encode(schema.event, data.events.columns, "events")
        self._contexts: dict[str, Encoded] | None = None
        self._weights = _weights(data, weight) if weight else None

    @property
    def catalogue_size(self) -> int:
        """How many items there are."""
        return len(self.data.items)

    def queries(self, events: Events) -> Queries:
        """Requests that come just before these events, as the service sees them: example age 0."""
        return self._queries(events, self.schema.encode_context(self.data, events, None))

    def items(self, rows: Tensor | None = None) -> Items:
        """The items of these rows int64 [m]; the whole catalogue when none are named."""
        if rows is None:
            return Items(torch.arange(self.catalogue_size, device=self.device), self._item_columns)
        return Items(rows, {name: column[rows] for name, column in self._item_columns.items()})

    def batch(self, events: Events) -> Batch:
        """Training examples: predict each of these events from what came before it."""
        if self._contexts is None:
            everything = np.arange(len(self.data.events))
            self._contexts = self.schema.encode_context(self.data, everything, self._end)
        queries = self._queries(events, {name: column[events] for name, column in self._contexts.items()})
        weights = np.ones(len(events), np.float32) if self._weights is None else self._weights[events]
        return Batch(queries, self._tensor(self.data.events.items[events]), self._tensor(weights))

    def _queries(self, events: Events, contexts: Mapping[str, Encoded]) -> Queries:
        log = self.data.events
        history = self._tensor(log.histories(events, self.schema.history_length))
        users = self._tensor(log.users[events])
        columns = {name: column[users] for name, column in self._users.items()}
        columns |= self._tensors(contexts)
        if self._past:
            places, real = log.windows(events, self.schema.history_length)
            columns |= self._tensors({name: _masked(past[places], real) for name, past in self._past.items()})
        return Queries(history, columns)

    def _tensors(self, columns: Mapping[str, Encoded]) -> dict[str, Tensor]:
        return {name: self._tensor(column) for name, column in columns.items()}

    def _tensor(self, array: np.ndarray) -> Tensor:
        if np.issubdtype(array.dtype, np.integer):
            return torch.from_numpy(array.astype(np.int64)).to(self.device)
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)


def _masked(values: Encoded, real: np.ndarray) -> Encoded:
    shape = real.reshape(real.shape + (1,) * (values.ndim - real.ndim))
    nothing = values.dtype.type(-1 if np.issubdtype(values.dtype, np.integer) else 0)
    return np.where(shape, values, nothing)


def _weights(data: Prepared, name: str) -> np.ndarray:
    if name not in data.events.columns:
        raise DataError(
            f"the reward column '{name}' is not in the log",
            where="training.weight",
            expected=f"one of {', '.join(data.events.columns)}" if data.events.columns else "a log with such a column",
            remedy="Add it to data.columns and prepare again.",
        )
    weights = np.asarray(data.events.columns[name], np.float32)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError(f"'{name}' is missing, infinite or negative somewhere", where="training.weight", expected="≥ 0")
    return weights
