"""A data set as the towers see it: events become queries and positives, rows become items, tensors on one device."""

import copy
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError
from zhiyin.features.base import Encoded
from zhiyin.features.schema import Schema, encode
from zhiyin.learning.base import Batch, Numbers
from zhiyin.learning.batches import Draft, Stretch
from zhiyin.models.base import Items, Queries, Runs


class Examples:
    """What a fitted schema makes of a prepared data set. Every feature is encoded once; memory is O(events)."""

    def __init__(self, data: Prepared, schema: Schema, *, end: int, device: torch.device, weight: str = "") -> None:
        """`end`: when training ends (milliseconds), for the examples' age. `weight`: the event column that holds each
        example's reward; every example weighs 1 without one. Raises `DataError` for a reward that is no weight."""
        self.data, self.schema, self.device, self._end = data, schema, device, end
        self._users = self._tensors(encode(schema.user, data.user_table, "users"))
        self._past = encode(schema.event, data.events.columns, "events")
        self._contexts: dict[str, Encoded] | None = None
        self._weights = _weights(data, weight) if weight else None
        self._rows: Tensor | None = None

    @property
    def catalogue_size(self) -> int:
        """How many items there are."""
        return len(self.data.items)

    @cached_property
    def _item_columns(self) -> dict[str, Tensor]:
        """Of the whole catalogue; not made where only queries are wanted."""
        return self._tensors(encode(self.schema.item, self.data.item_table, "items"))

    def without_ids(self, rows: Tensor) -> "Examples":
        """The same, but these items, rows int64 [·], are new ones to the item tower: their features alone tell what
        they are."""
        other = copy.copy(self)
        if len(rows):
            other._rows = torch.arange(self.catalogue_size, device=self.device)
            other._rows[rows.to(self.device)] = UNKNOWN
        return other

    def lengths(self, events: Events) -> Numbers:
        """int64 [n] how many events stand before each of these, as far as a history reaches."""
        log = self.data.events
        before: Numbers = np.minimum(events - log.offsets[log.users[events]], self.schema.history_length)
        return before

    def queries(self, events: Events, length: int = 0) -> Queries:
        """Requests that come just before these events, as the service sees them: example age 0. `length`: of the
        histories' windows, where none of them is longer; 0 for the schema's."""
        log = self.data.events
        length = length or self.schema.history_length
        history = self._tensor(log.histories(events, length))
        columns = self._request_columns(events, self.schema.encode_context(self.data, events, None))
        if self._past:
            places, real = log.windows(events, length)
            columns |= self._tensors({name: _masked(past[places], real) for name, past in self._past.items()})
        return Queries(history, columns)

    def items(self, rows: Tensor | None = None) -> Items:
        """The items of these rows int64 [m]; the whole catalogue when none are named."""
        if rows is None:
            everything = torch.arange(self.catalogue_size, device=self.device)
            return Items(everything if self._rows is None else self._rows, self._item_columns)
        columns = {name: column[rows] for name, column in self._item_columns.items()}
        return Items(rows if self._rows is None else self._rows[rows], columns)

    def batch(self, draft: Draft) -> Batch:
        """A step's examples on the device: predict each event from what came before it."""
        weights = None if self._weights is None else self._weights[draft.events]
        return Batch(
            runs=tuple(self.runs(one) for one in draft.stretches),
            rows=self._tensor(draft.rows),
            positives=self._tensor(draft.positives),
            negatives=self._tensor(draft.negatives),
            weights=torch.ones(len(draft.positives), device=self.device) if weights is None else self._tensor(weights),
            positive_logq=self._tensor(draft.drawn.positive_logq),
            negative_logq=self._tensor(draft.drawn.logq),
            own=None if draft.own is None else self._tensor(draft.own),
            hits=self._tensor(draft.hits),
            hit_bounds=np.searchsorted(draft.hits[0], np.arange(len(draft.positives) + 1)),
        )

    def runs(self, stretch: Stretch) -> Runs:
        """Training requests that share their histories; their age is that of their event."""
        if self._contexts is None:
            everything = np.arange(len(self.data.events))
            self._contexts = self.schema.encode_context(self.data, everything, self._end)
        past = {}
        if self._past:
            steps = np.arange(stretch.history.shape[1])
            real = steps < stretch.widths[:, None]
            places = np.where(real, stretch.starts[:, None] + steps, 0)
            past = self._tensors({name: _masked(values[places], real) for name, values in self._past.items()})
        contexts = {name: column[stretch.events] for name, column in self._contexts.items()}
        return Runs(
            self._tensor(stretch.history),
            self._tensor(stretch.places),
            self._tensor(stretch.requests),
            self._request_columns(stretch.events, contexts),
            past,
            self.schema.history_length,
            None if stretch.own is None else self._tensor(stretch.own),
        )

    def _request_columns(self, events: Events, contexts: Mapping[str, Encoded]) -> dict[str, Tensor]:
        columns = self._tensors(contexts)
        if self._users:
            users = self._tensor(self.data.events.users[events])
            columns |= {name: column[users] for name, column in self._users.items()}
        return columns

    def _tensors(self, columns: Mapping[str, Encoded]) -> dict[str, Tensor]:
        return {name: self._tensor(column) for name, column in columns.items()}

    def _tensor(self, array: np.ndarray) -> Tensor:
        kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        tensor = torch.from_numpy(np.ascontiguousarray(array, kind))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def _masked(values: Encoded, real: np.ndarray) -> Encoded:
    shape = real.reshape(real.shape + (1,) * (values.ndim - real.ndim))
    nothing = values.dtype.type(UNKNOWN if np.issubdtype(values.dtype, np.integer) else 0)
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
