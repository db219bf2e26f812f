"""A data set in any of its forms becomes tidy Parquet: events (user, item, time, …), items (item, …), users (user, …).

Events keep the order of the original file, which is what breaks ties of equal time. The tables of items and users hold
those of the log only, one row each, so that the catalogue is what the published figures rank. Ids are text.
"""
# ruff: noqa: S608 – paths went through `literal`, names through `quoted`; the rest are this package's own queries

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from zhiyin.data.archives import find
from zhiyin.data.checks import likely_unit
from zhiyin.data.readers import literal, quoted
from zhiyin.data.sources import MEMORY, Source, TimeUnit
from zhiyin.errors import DataError, Failure

_IDS = {"items": "item", "users": "user"}

_NAMES = {"user_id": "user", "item_id": "item"}
"""What a tidy folder may call the columns of ids."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as its publisher ships it: its name, and the DuckDB function that reads it, with `{}` for its path.

    `convert(path, target)` writes it as something DuckDB can read, where it is not. `needed`: the form is not there
    without it; the tables that read a file that is not needed and not there are left out.
    """

    name: str
    scan: str
    convert: Callable[[Path, Path], None] | None = None
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Form:
    """One way a data set is shipped: its files by a short name, and each tidy table's query over `{short name}`.

    The table "events" has the columns user, item, time; "items" has item, "users" user. Others are written as they are.
    """

    files: Mapping[str, File]
    tables: Mapping[str, str]
    time_unit: TimeUnit

    def missing(self, found: Mapping[str, Path]) -> list[str]:
        """The needed files that are not among the found ones."""
        return [file.name for file in self.files.values() if file.needed and file.name not in found]


def tidy(data: Path, forms: Sequence[Form], archives: Sequence[str], out: Path) -> Source:
    """Write the tidy files of `data` into `out`, and say how to read them.

    `data`: a folder or an archive with one of `forms`; a folder with the publisher's `archives`; or a folder that is
    tidy already (events.parquet, or train.parquet and test.parquet; items.parquet and users.parquet beside them).
    Raises `DataError` for one that cannot be read, `Failure` when it cannot be written; `out` is then what it was.
    """
    work = out.absolute().with_name(f".tidying-{out.absolute().name}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        (work / "unpacked").mkdir(parents=True)
        (work / "tidy").mkdir()
        with duckdb.connect(
            str(work / "work.duckdb"), config={"memory_limit": MEMORY, "autoinstall_known_extensions": "false"}
        ) as connection:
            tables, unit = _ready(connection, data) or _original(data, forms, archives, work / "unpacked")
            columns, unit = _build(connection, tables, unit, data, work / "tidy")
        out.mkdir(parents=True, exist_ok=True)
        for file in (work / "tidy").iterdir():
            file.replace(out / file.name)
    except (duckdb.Error, OSError) as error:
        raise Failure(
            f"the tidy files could not be written: {str(error).splitlines()[0]}",
            where=str(out),
            remedy="Check the disk, its space and its rights, and try again.",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    items, users = (out / f"{name}.parquet" if name in tables else None for name in _IDS)
    return Source(out / "events.parquet", items, users, time_unit=unit, columns=columns)


def _original(
    data: Path, forms: Sequence[Form], archives: Sequence[str], work: Path
) -> tuple[dict[str, str], TimeUnit | None]:
    """The queries of the first form that is there."""
    names = {file.name for form in forms for file in form.files.values()}
    found = find(data, names, archives, work)
    form = next((form for form in forms if not form.missing(found)), None)
    if form is None:
        nearest = min(forms, key=lambda form: len(form.missing(found)) / len(form.files))
        raise DataError(
            f"{' and '.join(nearest.missing(found))} not found",
            where=str(data),
            expected=" or ".join(", ".join(f.name for f in form.files.values() if f.needed) for form in forms)
            + ", or a tidy folder with events.parquet",
            remedy="Give --data the folder or the archive that holds them.",
        )
    scans = {}
    for short, file in form.files.items():
        if file.name in found:
            path = found[file.name]
            if file.convert:
                path, original = work / f"{short}.converted", path
                file.convert(original, path)
            scans[short] = file.scan.format(literal(str(path)))
    tables = {}
    for name, query in form.tables.items():
        if all(f"{{{short}}}" not in query or short in scans for short in form.files):
            tables[name] = query.format(**scans)
    return tables, form.time_unit


def _ready(connection: duckdb.DuckDBPyConnection, data: Path) -> tuple[dict[str, str], TimeUnit | None] | None:
    """The queries that read a tidy folder, if `data` is one. Its times are looked at once they are read."""
    events = data / "events.parquet"
    parts = {part: data / f"{part}.parquet" for part in ("train", "test")}
    if events.is_file():
        log = _parquet(connection, events)
    elif all(path.is_file() for path in parts.values()):
        log = " union all ".join(
            f"select *, '{name}' as split from ({_parquet(connection, p)})" for name, p in parts.items()
        )
    else:
        return None
    tables = {"events": _timed(connection, log, data, drawn=not events.is_file())}
    for name in _IDS:
        if (data / f"{name}.parquet").is_file():
            tables[name] = _parquet(connection, data / f"{name}.parquet")
    return tables, None


def _parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    """A query of a tidy file, its columns of ids called user and item, as text."""
    scan = f"read_parquet({literal(str(path))})"
    try:
        described = connection.execute(f"describe select * from {scan}").fetchall()
    except duckdb.Error as error:
        raise DataError(
            f"the file cannot be read: {str(error).splitlines()[0]}", where=str(path), expected="a Parquet file"
        ) from None
    chosen = []
    for name, kind, *_ in described:
        called = _NAMES.get(name, name)
        cast = "::varchar" if called in _IDS.values() and kind != "VARCHAR" else ""
        chosen.append(f"{quoted(name)}{cast} as {quoted(called)}")
    return f"select {', '.join(chosen)} from {scan}"


def _timed(connection: duckdb.DuckDBPyConnection, log: str, data: Path, *, drawn: bool) -> str:
    names = [row[0] for row in connection.execute(f"describe {log}").fetchall()]
    for name in ("user", "item"):
        if name not in names:
            raise DataError(
                f"the tidy events have no column '{name}' or '{name}_id'",
                where=str(data),
                expected="user, item, and time where there is one",
            )
    if "time" in names:
        return log
    return in_drawn_order(log) if drawn else in_order(log)


def in_order(log: str) -> str:
    """A query that adds `time` to a log without one: each event's position among its user's, as they stand."""
    return _positions(log, "n.n")


def in_drawn_order(log: str) -> str:
    """`in_order` for a log with a `split` into train and test whose files order each user's items by something that is
    no time, such as the item's number: training items first, and within a part as the md5 of user and item has it."""
    return _positions(log, "n.split <> 'train', md5(concat_ws(' ', n.user, n.item)), n.n")


def _positions(log: str, order: str) -> str:
    return (
        f"select n.* exclude (n), row_number() over (partition by n.user order by {order}) - 1 as time "
        f"from (select *, row_number() over () as n from ({log})) as n order by n.n"
    )


def _build(
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[str, str],
    unit: TimeUnit | None,
    data: Path,
    folder: Path,
) -> tuple[tuple[str, ...], TimeUnit]:
    """Write each table; the log's further columns and its time's unit."""
    for name, query in tables.items():
        try:
            connection.execute(f"create table {quoted(name)} as {query}")
        except (duckdb.OutOfMemoryException, duckdb.FatalException):
            raise
        except duckdb.Error as error:
            raise DataError(
                f"its {name} cannot be read: {' '.join(str(error).split())[:300]}",
                where=str(data),
                expected="the files as their publisher ships them",
                remedy="Fetch them again.",
            ) from None
    for name in tables:
        rows = f"select * from {quoted(name)}"
        if one := _IDS.get(name):
            seen = f"select min(rowid) from {name} where {quoted(one)} in (select {quoted(one)} from events)"
            rows += f" where rowid in ({seen} group by {quoted(one)})"
        path = literal(str(folder / f"{name}.parquet"))
        connection.execute(f"copy ({rows} order by rowid) to {path} (format parquet, compression zstd)")
    described = dict(row[:2] for row in connection.execute("describe events").fetchall())
    columns = tuple(name for name in described if name not in ("user", "item", "time"))
    return columns, unit or _unit(connection, described["time"])


def _unit(connection: duckdb.DuckDBPyConnection, kind: str) -> TimeUnit:
    """A tidy log's unit: dates are "iso"; numbers that no unit puts between 1990 and 2100 are only positions."""
    if kind.startswith(("DATE", "TIMESTAMP", "VARCHAR")):
        return "iso"
    low, high = connection.execute("select min(time), max(time) from events").fetchall()[0]
    likely = likely_unit(low, high) if low is not None else None
    units: dict[str | None, TimeUnit] = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}
    return units.get(likely, "position")
