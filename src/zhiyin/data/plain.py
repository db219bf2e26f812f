"""A small, plain log is prepared at once, in memory: DuckDB's start alone takes longer.

Plain is one Parquet file with ids that are text or whole numbers and times that are whole numbers, without tables,
further columns or anything to be refused. Of all else nothing is said here: the other way takes it, and says it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zhiyin.data import checks
from zhiyin.data.events import EventLog
from zhiyin.data.merging import offsets_of
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary

MOST_EVENTS, MOST_BYTES = 1 << 20, 1 << 26
"""Events in a log that is held in memory, and bytes of its columns as the file holds them, not compressed."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What there is to know of a plain log."""

    users: Vocabulary
    items: Vocabulary
    events: EventLog


def plain(path: Path, user: str, item: str, time: str, unit: str) -> Plain | None:
    """The log in the file `path`, with what these columns hold; None where it is not a small and plain one."""
    try:
        table = _read(path, user, item, time)
        if table is None:
            return None
        times = _times(table.column(time), unit)
        one, other = _numbered(table.column(user)), _numbered(table.column(item))
    except (pa.ArrowException, OSError, KeyError):  # KeyError: no such column, or one of records
        return None
    if times is None or one is None or other is None:
        return None
    (users, user_rows), (items, item_rows) = one, other
    order = _order(user_rows, times)
    rows = user_rows[order]
    offsets = offsets_of(rows, len(users))
    return Plain(users, items, EventLog(rows, item_rows[order], times[order], offsets, Table.of({}, len(rows))))


def _read(path: Path, user: str, item: str, time: str) -> pa.Table | None:
    with pq.ParquetFile(path, read_dictionary=[user, item]) as file:
        schema, facts = file.schema_arrow, file.metadata
        lower = [name.lower() for name in schema.names]
        if any(lower.count(name.lower()) != 1 or name not in schema.names for name in (user, item, time)):
            return None
        size = sum(
            group.column(at).total_uncompressed_size
            for group in map(facts.row_group, range(facts.num_row_groups))
            for at in range(group.num_columns)
            if group.column(at).path_in_schema in (user, item, time)
        )
        if not 0 < facts.num_rows <= MOST_EVENTS or size > MOST_BYTES:
            return None
        return file.read([user, item, time], use_threads=False)


def _numbered(column: pa.ChunkedArray) -> tuple[Vocabulary, NDArray[np.int32]] | None:
    """Ids by their UTF-8 bytes, and the row of each event's."""
    if not pa.types.is_dictionary(column.type):
        if not pa.types.is_integer(column.type):
            return None
        column = column.dictionary_encode()
    if column.null_count:
        return None
    chunks = column.unify_dictionaries().chunks
    ids = chunks[0].dictionary
    if not _is_text(ids.type) and not pa.types.is_integer(ids.type):
        return None
    ids = ids.cast(pa.large_string())
    ids.validate(full=True)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    unused = np.bincount(codes, minlength=len(ids)) == 0
    blank = pc.any(pc.equal(pc.utf8_trim(ids, " "), "")).as_py()
    if unused.any() or blank or ids.null_count or len(ids.unique()) < len(ids):
        return None
    order = pc.array_sort_indices(ids).to_numpy()
    rows = np.empty(len(ids), np.int32)
    rows[order] = np.arange(len(ids), dtype=np.int32)
    return Vocabulary.of_arrow(pa.chunked_array([ids.take(pa.array(order))])), rows[codes]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _times(column: pa.ChunkedArray, unit: str) -> NDArray[np.int64] | None:
    """Milliseconds, or positions."""
    if not pa.types.is_integer(column.type) or pa.types.is_uint64(column.type) or column.null_count:
        return None
    times: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    low, high = int(times.min()), int(times.max())
    if low < 0 or unit == "iso" or (unit in checks.UNITS and not checks.of_this_age(unit, low, high)):
        return None
    up, down = checks.UNITS.get(unit, (1, 1))
    return times * up // down


def _order(users: NDArray[Any], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """By (user, time, arrival)."""
    first = times.min()
    span = int(times.max() - first) + 1
    if span * (int(users.max()) + 1) < 1 << 63:
        return np.argsort(users * np.int64(span) + (times - first), kind="stable")
    return np.lexsort((times, users))
