"""Two sorted logs become one, and repeated events are found: numpy over memory maps, a piece at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zhiyin.data.events import EventLog, Events
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Rows
from zhiyin.errors import DataError

_CHUNK = 1 << 21


def merged(old: EventLog, new: EventLog, folder: Path) -> EventLog:
    """Both by (user, time, arrival), where all of `old` arrived before all of `new`; `new` has the rows of both.

    The result is memory-mapped from files in `folder`. The old log is copied once, in order, and sorted never: each new
    event finds its place among its user's old ones by bisection. Raises `DataError` when the columns do not fit.
    """
    places = np.concatenate([_places(old, new, at) for at in range(0, len(new), _CHUNK)] or [np.empty(0, np.int64)])
    fresh = np.zeros(len(old) + len(new), bool)
    fresh[places + np.arange(len(new))] = True
    return EventLog(
        _woven(old.users, new.users, fresh, folder / "merged-users.bin"),
        _woven(old.items, new.items, fresh, folder / "merged-items.bin"),
        _woven(old.times, new.times, fresh, folder / "merged-times.bin"),
        _grown(old.offsets, len(new.offsets)) + new.offsets,
        _woven_columns(old.columns, new.columns, fresh, folder / "merged-columns.arrow"),
    )


def offsets_of(users: Rows, count: int) -> NDArray[np.int64]:
    """[count + 1] where each user's run of sorted rows begins, and the end."""
    return np.searchsorted(users, np.arange(count + 1, dtype=users.dtype)).astype(np.int64)


def repeated(log: EventLog) -> NDArray[np.bool_]:
    """[E] whether an earlier event has the same user, item and time."""
    found = np.zeros(len(log), bool)
    start = 0
    while start < len(log):
        user = int(log.users[min(start + _CHUNK, len(log)) - 1])
        stop = int(log.offsets[user + 1])
        users, times = log.users[start:stop], log.times[start:stop]
        tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
        places = start + np.flatnonzero(np.r_[False, tied] | np.r_[tied, False])
        order = places[np.lexsort((log.items[places], log.times[places], log.users[places]))]  # stable: arrival last
        same = np.ones(max(len(order) - 1, 0), bool)
        for column in (log.users, log.times, log.items):
            same &= column[order[1:]] == column[order[:-1]]
        found[order[1:][same]] = True
        start = stop
    return found


def without(log: EventLog, dropped: NDArray[np.bool_]) -> EventLog:
    """The log without some of its events."""
    kept = ~dropped
    users = log.users[kept]
    columns = Table(log.columns.arrow.filter(pa.array(kept)))
    return EventLog(users, log.items[kept], log.times[kept], offsets_of(users, len(log.offsets) - 1), columns)


def _grown(offsets: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.concatenate([offsets, np.full(length - len(offsets), offsets[-1])])


def _places(old: EventLog, new: EventLog, start: int) -> Events:
    """[n] how many old events come before each of a chunk of new ones: its user's up to its time, and all before."""
    users, times = new.users[start : start + _CHUNK], new.times[start : start + _CHUNK]
    offsets = _grown(old.offsets, len(new.offsets))
    low, high = offsets[users], offsets[users.astype(np.int64) + 1]
    while len(searched := np.flatnonzero(low < high)):
        middle = (low[searched] + high[searched]) // 2
        before = old.times[middle] <= times[searched]
        low[searched[before]] = middle[before] + 1
        high[searched[~before]] = middle[~before]
    return low


def _woven(old: NDArray[Any], new: NDArray[Any], fresh: NDArray[np.bool_], path: Path) -> NDArray[Any]:
    """Old and new values in their own orders, the new ones where `fresh`."""
    with path.open("wb") as file:
        done = 0
        for start in range(0, len(fresh), _CHUNK):
            mask = fresh[start : start + _CHUNK]
            taken = int(np.count_nonzero(mask))
            values = np.empty(len(mask), old.dtype)
            values[mask] = new[done : done + taken]
            values[~mask] = old[start - done : start - done + len(mask) - taken]
            values.tofile(file)
            done += taken
    return np.memmap(path, old.dtype, "r")


def _woven_columns(old: Table, new: Table, fresh: NDArray[np.bool_], path: Path) -> Table:
    if not list(old) and not list(new):
        return Table.of({}, len(fresh))
    schema = _common_schema(old.arrow, new.arrow)
    one, two = (table.arrow.select(schema.names).cast(schema) for table in (old, new))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        done = 0
        for start in range(0, len(fresh), _CHUNK):
            mask = fresh[start : start + _CHUNK]
            taken = int(np.count_nonzero(mask))
            aged = len(mask) - taken
            places = np.where(mask, aged + np.cumsum(mask) - 1, np.cumsum(~mask) - 1)
            both = pa.concat_tables([one.slice(start - done, aged), two.slice(done, taken)]).combine_chunks()
            writer.write_table(both.take(pa.array(places)))
            done += taken
    return Table.open(path)


def _common_schema(old: pa.Table, new: pa.Table) -> pa.Schema:
    """A type for each column that holds both; a column without any value has no say."""
    fields = []
    for name in old.column_names:
        one, two = old.column(name), new.column(name)
        types = [column.type for column in (one, two) if column.null_count < len(column)] or [one.type]
        try:
            fields.append(pa.unify_schemas([pa.schema([(name, t)]) for t in types], promote_options="permissive")[0])
        except pa.ArrowException:
            raise DataError(
                f"column '{name}' is {two.type} in the new files, and was {one.type}",
                expected="values of one kind in all files",
                remedy="Correct the new files, or prepare all files together.",
            ) from None
    return pa.schema(fields)
