"""Your files become a prepared data set: read, checked, numbered, sorted, and put in place in one move.

Rows are given in the order of the ids' UTF-8 bytes, events by (user, time, arrival), so the same files always give the
same data set. The work is DuckDB's, which spills to disk what does not fit into `MEMORY`.
"""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

import errno
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zhiyin.data import checks, columns
from zhiyin.data.events import EventLog, Times
from zhiyin.data.prepared import Prepared
from zhiyin.data.readers import Loaded, connect, load, quoted
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Rows, Vocabulary
from zhiyin.errors import DataError, Failure, SpecError

MEMORY = "800MiB"
"""What DuckDB may hold at a time; the rest is spilled beside the prepared folder."""

TimeUnit = Literal["s", "ms", "us", "ns", "iso", "position"]

_BATCH = 1 << 17
_CHUNK = 1 << 21


@dataclass(frozen=True, slots=True)
class Source:
    """Where the log is and what its columns are called.

    `events`, `items`, `users`: a .parquet, .csv, .tsv (.gz too), .arrow or .feather file, a folder of one kind of
    them, or a pattern. `user`, `item`, `time`: columns of the log; the item and user tables name their ids the same,
    unless `item_id` or `user_id` says otherwise. `time = ""`: the log's order is its time.
    `time_unit`: "iso" for dates and timestamps (UTC where they name no zone); "position" where times only order a
    user's events and are kept as they are. `columns`: further event columns to keep.
    `duplicates`: what becomes of an event whose user, item and time were there before: "drop", or "keep".
    """

    events: Path
    items: Path | None = None
    users: Path | None = None
    user: str = "user"
    item: str = "item"
    time: str = "time"
    time_unit: TimeUnit = "s"
    item_id: str = ""
    user_id: str = ""
    columns: tuple[str, ...] = ()
    duplicates: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        if not self.time and self.time_unit != "position":
            raise SpecError(
                f'time = "" with time_unit = "{self.time_unit}"',
                where=".time",
                expected='time_unit = "position" for a log without a time column',
            )
        names = [name for name in (self.user, self.item, self.time) if name]
        if len(set(names)) < len(names):
            raise SpecError(
                f"user = '{self.user}', item = '{self.item}', time = '{self.time}'",
                expected="three columns that differ",
            )


@dataclass(frozen=True, slots=True)
class Summary:
    """What was prepared. `first`, `last`: milliseconds since 1970, or positions without a `clock`; `median_events`: of
    the users with any; `duplicates`: events whose user, item and time were there before, `kept` or dropped;
    `items_without_attributes`, `users_without_attributes`: those of the log that their table does not hold."""

    users: int
    items: int
    events: int
    first: int
    last: int
    clock: bool
    median_events: float
    duplicates: int
    kept: bool
    items_without_attributes: int
    users_without_attributes: int
    items_without_events: int

    def words(self) -> str:
        """The same for a person."""
        lines = [f"{self.users:,} users, {self.items:,} items, {self.events:,} events{self._span()}"]
        lines.append(f"half of the users have {self.median_events:g} events or more")
        for count, what in (
            (
                self.duplicates,
                f"events repeat an earlier one's user, item and time: {'kept' if self.kept else 'dropped'}",
            ),
            (self.items_without_attributes, "items of the log are not in the item table: their attributes are missing"),
            (self.users_without_attributes, "users of the log are not in the user table: their attributes are missing"),
            (self.items_without_events, "items of the item table have no events: candidates all the same"),
        ):
            if count:
                lines.append(f"{count:,} {what}")
        return "\n".join(lines)

    def _span(self) -> str:
        if not self.clock:
            return ", in order but without clock times"
        first, last = (f"{datetime.fromtimestamp(t / 1000, UTC):%Y-%m-%d}" for t in (self.first, self.last))
        return f", {first} to {last}"


def prepare(source: Source, folder: Path, progress: Callable[[str], None] | None = None) -> Summary:
    """Write the data set of `source` to `folder`, for `Prepared.open`; an older one there is replaced at the very end.

    `progress` is told what is being done. Raises `DataError` for input that cannot be used, and `Failure` when the
    disk is full; then, as when the process is killed, `folder` is what it was.
    """
    if folder.exists() and not (folder / "manifest.json").exists() and (folder.is_file() or any(folder.iterdir())):
        raise DataError(
            "this is no prepared data set, and would be replaced by one",
            where=str(folder),
            expected="an older prepared data set, an empty folder, or nothing",
            remedy="Set home to another folder.",
        )
    hidden = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        hidden.mkdir(parents=True)
        summary = _build(source, hidden, progress or (lambda words: None))
        _replace(folder, hidden)
    except (OSError, duckdb.Error) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise Failure(
            f"the data could not be prepared: {str(error).splitlines()[0]}",
            where=str(folder),
            remedy="Free some space and prepare again." if full else "Check the disk and its rights, and try again.",
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return summary


def _replace(folder: Path, hidden: Path) -> None:
    old = hidden / "old"
    if folder.exists():
        folder.rename(old)
    try:
        (hidden / "prepared").rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def _build(source: Source, hidden: Path, say: Callable[[str], None]) -> Summary:
    with connect(MEMORY, hidden / "spilled") as connection:
        say("reading the log")
        log, span = _read_log(connection, source)
        say("numbering users and items")
        users, user_table, bare_users = _side(connection, log, source.user, "user", source.users, source.user_id)
        items, item_table, bare_items = _side(connection, log, source.item, "item", source.items, source.item_id)
        say(f"sorting {log.count():,} events")
        events = _sorted_events(connection, log, source, span, len(users), hidden)
    say("looking for duplicates")
    repeated = _repeated(events)
    duplicates = int(np.count_nonzero(repeated))
    if duplicates and source.duplicates == "drop":
        events = _without(events, repeated)
    say("writing")
    data = Prepared(users, items, events, user_table, item_table, source.time_unit != "position")
    data.save(hidden / "prepared")
    counts = np.diff(events.offsets)
    return Summary(
        users=len(users),
        items=len(items),
        events=len(events),
        first=span.first,
        last=span.last,
        clock=data.clock,
        median_events=float(np.median(counts[counts > 0])),
        duplicates=duplicates,
        kept=source.duplicates == "keep",
        items_without_attributes=bare_items,
        users_without_attributes=bare_users,
        items_without_events=int(len(items) - np.count_nonzero(np.bincount(events.items, minlength=len(items)))),
    )


def _read_log(connection: duckdb.DuckDBPyConnection, source: Source) -> tuple[Loaded, checks.Span]:
    wanted = {source.user: "data.user", source.item: "data.item"}
    if source.time:
        wanted[source.time] = "data.time"
    wanted |= {name: "data.columns" for name in source.columns if name not in wanted}
    log = load(connection, source.events, "log", wanted, whole=False)
    if not log.count():
        raise DataError("the log has no events", where=str(source.events), expected="at least one row")
    return log, checks.times(log, source.time, source.time_unit)


def _side(
    connection: duckdb.DuckDBPyConnection, log: Loaded, name: str, side: str, path: Path | None, other_name: str
) -> tuple[Vocabulary, Table, int]:
    """The vocabulary of users or items, their table, and how many of the log's their table does not hold.

    Leaves the DuckDB table `{side}_rows` behind: raw (the value in the log) → row.
    """
    column = quoted(name)
    connection.execute(f"create table {side}_values as select distinct {column} from log")
    sql = checks.ids(log, name, f"data.{side}", f"{side}_values")
    connection.execute(f"create table {side}_seen as select {column} as raw, {sql} as id from {side}_values")
    names = _read_table(connection, path, side, other_name or name) if path else None
    union = f" union select id from {side}_table" if names is not None else ""
    connection.execute(
        f"create table {side}_ids as select id, (row_number() over (order by id) - 1)::integer as row "
        f"from (select id from {side}_seen{union})"
    )
    connection.execute(f"create table {side}_rows as select raw, row from {side}_seen join {side}_ids using (id)")
    listed = connection.sql(f"select id from {side}_ids order by row").to_arrow_table()
    vocabulary = Vocabulary.of_arrow(listed.column("id"))
    if names is None:
        return vocabulary, Table.of({}, len(vocabulary)), 0
    bare = connection.execute(f"select count(*) from {side}_seen anti join {side}_table using (id)").fetchall()[0][0]
    if not names:
        return vocabulary, Table.of({}, len(vocabulary)), int(bare)
    chosen = ", ".join(f"value{i} as {quoted(one)}" for i, one in enumerate(names))
    ordered = f"select {chosen} from {side}_ids left join {side}_table using (id) order by {side}_ids.row"
    return vocabulary, Table(connection.sql(ordered).to_arrow_table()), int(bare)


def _read_table(connection: duckdb.DuckDBPyConnection, path: Path, side: str, name: str) -> list[str]:
    """The names of a user or item table's columns but its id; makes the DuckDB table `{side}_table`: id, value0, …"""
    loaded = load(connection, path, f"{side}_raw", {name: f"data.{side}_id"}, whole=True)
    if not loaded.count():
        raise DataError("the table has no rows", where=str(path), expected=f"one row for each {side}")
    sql = checks.ids(loaded, name, f"data.{side}_id")
    checks.unique(loaded, sql, side)
    names = [column for column in loaded.columns if column != name]
    chosen = "".join(f", {value} as value{i}" for i, value in enumerate(columns.values(loaded, names).values()))
    connection.execute(f"create table {side}_table as select {sql} as id{chosen} from {side}_raw")
    return names


def _sorted_events(
    connection: duckdb.DuckDBPyConnection, log: Loaded, source: Source, span: checks.Span, users: int, hidden: Path
) -> EventLog:
    """The events by (user, time, arrival), through files: memory-mapped, never all held at once."""
    kept = list(dict.fromkeys(source.columns))
    values = [f"{value} as value{i}" for i, value in enumerate(columns.values(log, kept).values())]
    read = ", ".join(
        [f"{quoted(source.user)} as a", f"{quoted(source.item)} as b", f"{span.sql} as t", "rowid as n", *values]
    )
    chosen = "".join(f", value{i} as {quoted(name)}" for i, name in enumerate(kept))
    batches = connection.sql(
        f"select u.row, i.row, e.t{chosen} from (select {read} from log) e "
        "join user_rows u on e.a = u.raw join item_rows i on e.b = i.raw order by u.row, e.t, e.n"
    ).to_arrow_reader(_BATCH)
    arrays, table = _spool(batches, hidden)
    return EventLog(*arrays, _offsets(arrays[0], users), table if kept else Table.of({}, len(arrays[0])))


def _spool(batches: pa.RecordBatchReader, hidden: Path) -> tuple[tuple[Rows, Rows, Times], Table]:
    paths = [hidden / f"{name}.bin" for name in ("users", "items", "times")]
    schema = pa.schema(list(batches.schema)[3:])
    columns = hidden / "columns.arrow"
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        writer = stack.enter_context(pa.ipc.new_file(stack.enter_context(pa.OSFile(str(columns), "wb")), schema))
        for batch in batches:
            for column, file in zip(batch.columns[:3], files, strict=True):
                column.to_numpy().tofile(file)
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns[3:], schema=schema))
    users, items = (np.memmap(path, np.int32, "r") for path in paths[:2])
    return (users, items, np.memmap(paths[2], np.int64, "r")), Table.open(columns)


def _offsets(users: Rows, count: int) -> NDArray[np.int64]:
    return np.searchsorted(users, np.arange(count + 1, dtype=users.dtype)).astype(np.int64)


def _repeated(log: EventLog) -> NDArray[np.bool_]:
    """[E] whether an earlier event has the same user, item and time; a few users at a time, for memory."""
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


def _without(log: EventLog, dropped: NDArray[np.bool_]) -> EventLog:
    kept = ~dropped
    users = log.users[kept]
    columns = Table(log.columns.arrow.filter(pa.array(kept)))
    return EventLog(users, log.items[kept], log.times[kept], _offsets(users, len(log.offsets) - 1), columns)
