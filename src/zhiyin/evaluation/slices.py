"""Parts of the queries or of the catalogue that are measured on their own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Column
from zhiyin.errors import SpecError
from zhiyin.evaluation.metrics import Counts
from zhiyin.spec import nearest

Members = NDArray[np.bool_]

NEW, HEAVY = 5, 0.9
"""A new user has at most so many events; a heavy one more than this share of the queries' users."""

COLD = 10
"""A cold item has at most so many training events."""

SEPARATOR = "|"
"""What parts the values of a text."""

LARGEST = 8
"""Values of a column that get a part of their own."""


def rest_name(taken: Collection[str]) -> str:
    """What all that has no part of its own is called: not as a value that is there."""
    return "other" if "other" not in taken else "all others"


@dataclass(frozen=True, slots=True)
class Slice:
    """`parts`: by name, bool [n] of the queries or [m] of the items; parts may overlap. A part of the queries is
    measured on its queries; a part of the items on the targets that are of it."""

    name: str
    of: Literal["queries", "items"]
    parts: Mapping[str, Members]


def history_slice(log: EventLog, starts: Events) -> Slice:
    """New and heavy users, by the events before each query."""
    lengths = starts - log.offsets[log.users[starts]]
    many = max(int(np.quantile(lengths, HEAVY)), NEW)
    parts = {
        "no history": lengths == 0,
        f"new (1–{NEW} events)": (lengths > 0) & (lengths <= NEW),
        f"{NEW + 1}–{many} events": (lengths > NEW) & (lengths <= many),
        f"heavy (> {many} events)": lengths > many,
    }
    return Slice("user's history", "queries", parts)


def warmth_slice(popularity: Counts) -> Slice:
    """Cold and warm items, by training events [m]."""
    parts = {
        "never in training": popularity == 0,
        f"cold (1–{COLD} events)": (popularity > 0) & (popularity <= COLD),
        f"warm (> {COLD} events)": popularity > COLD,
    }
    return Slice("item's training events", "items", parts)


def popularity_slice(popularity: Counts) -> Slice:
    """Head, torso and tail: the most popular items that together have a third of the training events, those that have
    the second third, and all others."""
    order = np.argsort(-popularity, kind="stable")
    before = np.empty(len(popularity), np.int64)
    before[order] = np.cumsum(popularity[order]) - popularity[order]
    third = popularity.sum() / 3
    head, torso = before < third, before < 2 * third
    names = ((head, "head"), (torso & ~head, "torso"), (~torso, "tail"))
    return Slice("item's popularity", "items", {f"{name} ({part.sum():,} items)": part for part, name in names})


def column_slice(name: str, of: Literal["queries", "items"], column: Column, separator: str = SEPARATOR) -> Slice:
    """By a column [n] or [m]: quarters of numbers, the commonest values of anything else; each of its values, where a
    row has several, as a list or as text that `separator` parts."""
    if column.ndim == 1 and np.issubdtype(column.dtype, np.number) and len(np.unique(column)) > LARGEST:
        return Slice(name, of, _quarters(column.astype(np.float64)))
    tags = [_tags(value, separator) for value in column]
    names, counts = np.unique([tag for row in tags for tag in row], return_counts=True)
    common = names[np.argsort(-counts, kind="stable")][:LARGEST].tolist()
    if all(one.replace(".", "", 1).isdigit() for one in common):
        common.sort(key=float)
    parts = {one: np.array([one in row for row in tags], bool) for one in common}
    rest = ~np.logical_or.reduce(list(parts.values())) if parts else np.ones(len(column), bool)
    return Slice(name, of, parts | ({rest_name(parts): rest} if rest.any() else {}))


def named_slices(
    names: Sequence[str], data: Prepared, starts: Events, separators: Mapping[str, str] = MappingProxyType({})
) -> list[Slice]:
    """The columns of these names: of users or of the log, for queries that begin with the events `starts` [n], or of
    items; a name that several have is the first's. `separators`: what parts a column's values, where it is not
    `SEPARATOR`. Raises `SpecError` for a name that none has."""
    log, found = data.events, []
    for name in names:
        separator = separators.get(name, SEPARATOR)
        if name in data.user_table:
            column = data.user_table[name][log.users[starts]]
            found.append(column_slice(f"user's {name}", "queries", column, separator))
        elif name in data.item_table:
            found.append(column_slice(f"item's {name}", "items", data.item_table[name], separator))
        elif name in log.columns:
            found.append(column_slice(f"event's {name}", "queries", log.columns[name][starts], separator))
        else:
            known = [*data.user_table, *data.item_table, *log.columns]
            raise SpecError(
                f"there is no column '{name}'{nearest(name, known)}",
                where="slices",
                expected=f"one of {', '.join(known)}" if known else "a table of users or items with columns",
                remedy="Event columns are kept in the log where [data] columns names them.",
            )
    return found


def _tags(value: object, separator: str) -> list[str]:
    if isinstance(value, list | tuple | np.ndarray):
        return [str(one) for one in value]
    if isinstance(value, str):
        return list(dict.fromkeys(one for part in value.split(separator) if (one := part.strip())))
    return [] if value is None else [str(value)]


def _quarters(numbers: NDArray[np.float64]) -> dict[str, Members]:
    ends = np.unique(np.nanquantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    parts = {
        f"{low:g} – {high:g}": (numbers >= low) & ((numbers < high) | (last & (numbers == high)))
        for low, high, last in zip(ends[:-1], ends[1:], [False] * (len(ends) - 2) + [True], strict=True)
    }
    missing = np.isnan(numbers)
    return parts | ({"unknown": missing} if missing.any() else {})
