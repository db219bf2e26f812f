"""Your files become a prepared data set: read, checked, numbered, sorted, and put in place in one move.

Rows are given in the order of the ids' UTF-8 bytes, events by (user, time, arrival), so the same files always give the
same data set. Files that come later are appended: what has a row keeps it.
The work is DuckDB's, which spills to disk what does not fit into `MEMORY`; a small, plain log is done without it.
"""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from zhiyin.data import checks, columns, origin
from zhiyin.data.events import EventLog, Times
from zhiyin.data.merging import merged, offsets_of, repeated, without
from zhiyin.data.numbering import Side, numbered
from zhiyin.data.plain import plain
from zhiyin.data.prepared import Prepared
from zhiyin.data.readers import Loaded, connect, load, quoted
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Rows
from zhiyin.errors import DataError, Failure, SpecError

MEMORY = "800MiB"
"""What DuckDB may hold at a time; the rest is spilled beside the prepared folder."""

TimeUnit = Literal["s", "ms", "us", "ns", "iso", "position"]

_BATCH = 1 << 17


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
    `items_without_attributes`, `users_without_attributes`: those of the log that their table does not hold. `added`:
    events that an append brought; `lost`: how many fewer there are than in the data set that this one replaced, where
    that was appended to."""

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
    added: int = 0
    lost: int = 0

    def words(self) -> str:
        """The same for a person."""
        lines = [f"{self.users:,} users, {self.items:,} items, {self.events:,} events{self._span()}"]
        lines.append(f"half of the users have {self.median_events:g} events or more")
        for count, what in (
            (self.added, "of the events are new"),
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
        if self.lost:
            lines.append(
                f"{self.lost:,} events fewer than before: what was appended is here only where data.events names its "
                "files. Name them all there, or append them again"
            )
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
    with _replacing(folder) as hidden:
        if folder.exists() and not (folder / "manifest.json").exists() and (folder.is_file() or any(folder.iterdir())):
            raise DataError(
                "this is no prepared data set, and would be replaced by one",
                where=str(folder),
                expected="an older prepared data set, an empty folder, or nothing",
                remedy="Set home to another folder.",
            )
        known = origin.moment(source)
        summary = _build(source, None, hidden, progress or (lambda words: None))
        summary = replace(summary, lost=max(0, origin.appended(folder) - summary.events))
        origin.write(source, hidden / "prepared", folder)
        origin.write_moment(known, hidden / "prepared")
        return summary


def append(source: Source, folder: Path, progress: Callable[[str], None] | None = None) -> Summary:
    """Add the events of `source`, new files only, to the data set in `folder`, which is replaced at the very end.

    Old users and items keep their rows, so that a fitted model stays what it was; new ones come after them, by their
    ids. Events come by (user, time, arrival), all of the old before the new; the rule for `duplicates` holds across
    both. Without a time column positions go on where the old ones end. A user or item table that `source` names is read
    anew and gives everyone's attributes; where it names none, new rows have no attributes.
    The summary is of the whole. Raises as `prepare` does, and `DataError` where `folder` holds nothing to append to, or
    something that differs: in its clock, or in the event columns kept.
    """
    with _replacing(folder) as hidden:
        old = Prepared.open(folder)
        _refuse_different(source, old, folder)
        known = origin.moment(source)
        summary = _build(source, old, hidden, progress or (lambda words: None))
        summary = replace(summary, added=summary.events - len(old.events))
        origin.keep(folder, hidden / "prepared")
        if summary.added:
            origin.write_appended(summary.events, hidden / "prepared")
        if source.items is not None:
            origin.write_moment(known, hidden / "prepared")
        return summary


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A hidden folder whose `prepared` takes the place of `folder`, unless something is raised."""
    hidden = folder.with_name(f".building-{folder.name}")
    if (hidden / "old" / "manifest.json").exists() and not folder.exists():
        (hidden / "old").rename(folder)  # killed between two renames
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        hidden.mkdir(parents=True)
        yield hidden
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


def _refuse_different(source: Source, old: Prepared, folder: Path) -> None:
    if old.clock != (source.time_unit != "position"):
        raise DataError(
            f"the data set has {'clock times' if old.clock else 'positions'}, and time_unit = '{source.time_unit}'",
            where=str(folder),
            expected="the same kind of time in all files",
            remedy="Set data.time_unit as it was, or prepare all files together.",
        )
    if set(old.events.columns) != set(source.columns):
        raise DataError(
            f"the data set keeps the event columns {sorted(old.events.columns)}, the source {sorted(source.columns)}",
            where=str(folder),
            expected="the same columns in all files",
            remedy="Set data.columns as it was, or prepare all files together.",
        )


def _build(source: Source, old: Prepared | None, hidden: Path, say: Callable[[str], None]) -> Summary:
    say("reading the log")
    found = _plain(source) if old is None else None
    users, items, events = found or _read(source, old, hidden, say)
    if old:
        say(f"merging with {len(old.events):,} events")
        events = merged(old.events, events, hidden)
    say("looking for duplicates")
    again = repeated(events)
    duplicates = int(np.count_nonzero(again))
    if duplicates and source.duplicates == "drop":
        events = without(events, again)
    say("writing")
    lineage = old.lineage if old else items.ids.digest()
    data = Prepared(users.ids, items.ids, events, users.table, items.table, source.time_unit != "position", lineage)
    data.save(hidden / "prepared")
    return _summary(data, duplicates, source.duplicates == "keep", users.bare, items.bare)


def _plain(source: Source) -> tuple[Side, Side, EventLog] | None:
    """Users, items and events of a small and plain log; None where it is none."""
    if source.items or source.users or source.columns or not source.time or source.events.suffix.lower() != ".parquet":
        return None
    if not source.events.is_file():
        return None
    found = plain(source.events, source.user, source.item, source.time, source.time_unit)
    if found is None:
        return None
    users, items = (Side(ids, Table.of({}, len(ids))) for ids in (found.users, found.items))
    return users, items, found.events


def _read(
    source: Source, old: Prepared | None, hidden: Path, say: Callable[[str], None]
) -> tuple[Side, Side, EventLog]:
    """Users and items, those of `old` first, and the events of `source` alone."""
    with connect(MEMORY, hidden / "spilled") as connection:
        log, span = _read_log(connection, source, old)
        say("numbering users and items")
        known = (Side.of_users(old), Side.of_items(old)) if old else (Side.none(), Side.none())
        users = numbered(connection, log, source.user, "user", source.users, source.user_id, known[0])
        items = numbered(connection, log, source.item, "item", source.items, source.item_id, known[1])
        say(f"sorting {log.count():,} events")
        return users, items, _sorted_events(connection, log, source, span, len(users.ids), hidden)


def _summary(data: Prepared, duplicates: int, kept: bool, bare_users: int, bare_items: int) -> Summary:
    counts = np.diff(data.events.offsets)
    popularity = np.bincount(data.events.items, minlength=len(data.items))
    return Summary(
        users=len(data.users),
        items=len(data.items),
        events=len(data.events),
        first=int(data.events.times.min()),
        last=int(data.events.times.max()),
        clock=data.clock,
        median_events=float(np.median(counts[counts > 0])),
        duplicates=duplicates,
        kept=kept,
        items_without_attributes=bare_items,
        users_without_attributes=bare_users,
        items_without_events=int(np.count_nonzero(popularity == 0)),
    )


def _read_log(
    connection: duckdb.DuckDBPyConnection, source: Source, old: Prepared | None
) -> tuple[Loaded, checks.Span]:
    wanted = {source.user: "data.user", source.item: "data.item"}
    if source.time:
        wanted[source.time] = "data.time"
    wanted |= {name: "data.columns" for name in source.columns if name not in wanted}
    log = load(connection, source.events, "log", wanted, whole=False)
    if not log.count():
        raise DataError("the log has no events", where=str(source.events), expected="at least one row")
    span = checks.times(log, source.time, source.time_unit)
    if old and not source.time:
        start = int(old.events.times.max(initial=-1)) + 1
        span = checks.Span(f"rowid + {start}", start, start + span.last)
    return log, span


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
    return EventLog(*arrays, offsets_of(arrays[0], users), table if kept else Table.of({}, len(arrays[0])))


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
