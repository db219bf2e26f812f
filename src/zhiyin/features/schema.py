"""The schema: every feature of users, items, events and requests, and the one way they are encoded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.data.tables import Column, Table
from zhiyin.errors import SpecError
from zhiyin.features.bag import Bag
from zhiyin.features.base import Encoded, Feature
from zhiyin.features.categorical import Categorical
from zhiyin.spec import Home, nearest

Features = Annotated[tuple[Feature, ...], Home("zhiyin.features")]

RESERVED = ("history", "rows")
"""What the towers call their own inputs."""

TIME, AGE = "time", "age"
"""Context columns that zhiyin itself provides: the request's time in milliseconds since 1970, and the training
example's age (milliseconds before the end of training; 0 for every request)."""


@dataclass(frozen=True, slots=True)
class Schema:
    """`user` features come from the profile, `item` ones from the item table, `event` ones from each past event,
    `context` ones from the event to be predicted (what is known when the request comes), `TIME` and `AGE` among them.
    """

    user: Features = ()
    item: Features = ()
    event: Features = ()
    context: Features = ()
    history_length: int = 50

    def __post_init__(self) -> None:
        if self.history_length < 1:
            raise SpecError(f"{self.history_length}", where=".history_length", expected="at least 1")
        for side in (("user", "event", "context"), ("item",)):
            names = [f.name for part in side for f in getattr(self, part)]
            for name in names:
                if not name.isidentifier() or name in RESERVED:
                    raise SpecError(
                        f"a feature is named {name!r}",
                        expected=f"letters, digits and _ (not a digit first), and none of {', '.join(RESERVED)}",
                        remedy="Rename it; `column` says where its values stand.",
                    )
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise SpecError(
                    f"two features of the {' / '.join(side)} side are named '{twice[0]}'",
                    expected="names that are unique on a side",
                    remedy="Rename one; `column` says where its values stand.",
                )

    def fit(self, data: Prepared, split: Split) -> Self:
        """The schema with every feature fitted: on training events, their users and the whole item table."""
        events = data.events
        users = np.unique(events.users[split.train])
        contexts = _context_columns(self, data, split.train, split.end)
        return type(self)(
            user=tuple(f.fit(column(data.user_table, f, "users")[users]) for f in self.user),
            item=tuple(f.fit(column(data.item_table, f, "items")) for f in self.item),
            event=tuple(f.fit(column(events.columns, f, "events")[split.train]) for f in self.event),
            context=tuple(f.fit(contexts[source(f)]) for f in self.context),
            history_length=self.history_length,
        )

    def onward(self, older: "Schema") -> Self:
        """This schema, fitted on data that have grown, for a model that knows `older`: a value keeps its code, new ones
        come after, and numbers are scaled as they were. Raises `SpecError` where the two are set up differently."""
        parts: dict[str, Features] = {}
        for part in ("user", "item", "event", "context"):
            mine, theirs = getattr(self, part), getattr(older, part)
            if list(map(repr, mine)) != list(map(repr, theirs)) or self.history_length != older.history_length:
                raise SpecError(
                    "these are not the features that the earlier model was trained with",
                    where=f"features.{part}",
                    expected=f"history_length = {older.history_length} and {', '.join(map(repr, theirs)) or 'none'}",
                    remedy="Put them back, or start over.",
                )
            parts[part] = tuple(map(_onward, theirs, mine))
        return type(self)(**parts, history_length=self.history_length)

    def encode_context(self, data: Prepared, events: Events, end: int | None) -> dict[str, Encoded]:
        """The context features of these events. `end`: the end of training, for their age; None where age is 0."""
        columns = _context_columns(self, data, events, end)
        return {f.name: f.encode(columns[source(f)]) for f in self.context}


def _onward(older: Feature, newer: Feature) -> Feature:
    if not (isinstance(older, Categorical | Bag) and isinstance(newer, Categorical | Bag)):
        return older
    known = set(older.values)
    return replace(older, values=older.values + tuple(value for value in newer.values if value not in known))


def source(feature: Feature) -> str:
    """The column a feature reads."""
    return feature.column or feature.name


def column(table: Mapping[str, Column], feature: Feature, where: str) -> Column:
    """A feature's column. Raises `SpecError` naming the nearest column when there is none."""
    return table[_there(table, feature, where)]


def _there(table: Mapping[str, Column], feature: Feature, where: str) -> str:
    name = source(feature)
    if name not in table:
        raise SpecError(
            f"feature '{feature.name}' reads the column '{name}', which is not there{nearest(name, table)}",
            where=where,
            expected=f"one of {', '.join(table)}" if len(table) else "a table with columns (there is none)",
            remedy="Add it to data.columns, and prepare again." if where == "events" else "",
        )
    return name


def encode(features: tuple[Feature, ...], table: Mapping[str, Column], where: str) -> dict[str, Encoded]:
    """Every feature's codes or values, by name. What a text is encoded as does not depend on the others: each of a
    table's distinct ones is encoded once."""
    return {f.name: _encoded(f, table, _there(table, f, where)) for f in features}


def _encoded(feature: Feature, table: Mapping[str, Column], name: str) -> Encoded:
    texts = table.texts(name) if isinstance(table, Table) else None
    if texts is None:
        return feature.encode(table[name])
    distinct, places = texts
    return feature.encode(distinct)[places]


def encode_records(features: tuple[Feature, ...], records: list[Mapping[str, Any]]) -> dict[str, Encoded]:
    """The same from plain records (a profile's JSON), where any value may be missing."""
    encoded = {}
    for feature in features:
        values = np.empty(len(records), object)
        values[:] = [record.get(source(feature)) for record in records]
        encoded[feature.name] = feature.encode(values)
    return encoded


def _context_columns(schema: Schema, data: Prepared, events: Events, end: int | None) -> dict[str, Column]:
    wanted = {source(f): f for f in schema.context}
    columns: dict[str, Column] = {}
    for name, feature in wanted.items():
        if name in (TIME, AGE) and not data.clock:
            raise SpecError(
                f"context feature '{feature.name}' needs clock times, and this log has only positions",
                remedy="Remove the feature, or set data.time_unit.",
            )
        if name == AGE and name in data.events.columns:
            raise SpecError(
                f"context feature '{feature.name}' reads '{name}', and the log has such a column too",
                expected="the age of the training example, which zhiyin provides",
                remedy=f"Give the log's column '{name}' another name in the file.",
            )
        times = data.events.times[events]
        if name == TIME:
            columns[name] = times
        elif name == AGE:
            columns[name] = np.zeros(len(times), np.int64) if end is None else np.maximum(end - times, 0)
        else:
            columns[name] = column(data.events.columns, feature, "events")[events]
    return columns
