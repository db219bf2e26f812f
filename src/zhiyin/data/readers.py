"""Files become DuckDB tables: parquet, csv, tsv and Arrow; one file, a folder of them, or a pattern.

Nothing is guessed about a file's form: a csv's header is its first line, its values are text until `kinds` has seen
every one of them. Rows keep their order of arrival: files by name, rows as they stand in each.
"""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa
import pyarrow.dataset

from zhiyin.errors import DataError
from zhiyin.spec import nearest

FORMS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""How a file is read, by the end of its name."""

UNREADABLE = (duckdb.Error, pa.ArrowException, OSError, EOFError, zlib.error)
"""What is raised for a file that is broken."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file's rows as the DuckDB table `table`, whose rowid is the order of arrival. `columns`: name → DuckDB type.

    `scan`: what to write after FROM to read all of the file. `text`: the values come from a csv, so every column is
    text, and what they are is found by `kinds`.
    """

    connection: duckdb.DuckDBPyConnection
    path: Path
    files: tuple[Path, ...]
    scan: str
    table: str
    columns: Mapping[str, str]
    text: bool

    def count(self) -> int:
        """How many rows there are."""
        return int(self.one(f"select count(*) from {self.table}")[0])

    def one(self, query: str) -> tuple[Any, ...]:
        """The only row of a query's answer."""
        row: tuple[Any, ...] = self.connection.execute(query).fetchall()[0]
        return row

    def first(self, condition: str, value: str = "null") -> tuple[int, int, Any]:
        """How many rows meet an SQL condition, the first of them, and the expression `value` there."""
        count, row = self.one(f"select count(*), min(rowid) from {self.table} where {condition}")
        if not count:
            return 0, -1, None
        found = self.one(f"select {value} from {self.table} where rowid = {row}")[0]
        return count, row, found

    def where(self, row: int) -> str:
        """A row's place, for an error: its file, and its number there, from 1, the header not counted."""
        for file in self.files[:-1]:
            scan, _ = _scan(self.connection, (file,), "counted")
            rows = int(self.one(f"select count(*) from {scan}")[0])
            if row < rows:
                return f"{file}, row {row + 1}"
            row -= rows
        return f"{self.files[-1]}, row {row + 1}"

    def kinds(self, names: Iterable[str]) -> dict[str, str]:
        """The DuckDB type of each column; for a csv, the narrowest of whole number, number, truth value and text that
        holds every value. Numbers with leading zeros (a zip code) are text."""
        names = list(names)
        if not self.text or not names:
            return {name: self.columns[name] for name in names}
        tests = ", ".join(
            f"count({c}), bool_and(regexp_full_match({c}, '-?(0|[1-9][0-9]{{0,18}})') "
            f"and try_cast({c} as bigint) is not null) filter ({c} is not null), "
            f"bool_and(try_cast({c} as double) is not null and not regexp_matches({c}, '^-?0[0-9]')) "
            f"filter ({c} is not null), "
            f"bool_and(lower({c}) in ('true', 'false'))"
            for c in map(quoted, names)
        )
        answers = self.one(f"select {tests} from {self.table}")
        found = {}
        for i, name in enumerate(names):
            present, whole, number, truth = answers[4 * i : 4 * i + 4]
            kind = "BIGINT" if whole else "DOUBLE" if number else "BOOLEAN" if truth else "VARCHAR"
            found[name] = kind if present else "VARCHAR"
        return found


def connect(memory: str, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A database in memory that holds at most `memory`, puts the rest into `spill`, and asks nothing of the network."""
    connection = duckdb.connect(
        config={
            "memory_limit": memory,
            "temp_directory": str(spill or ""),
            "autoinstall_known_extensions": "false",
            "TimeZone": "UTC",
        }
    )
    connection.execute("set enable_progress_bar = false")
    return connection


def load(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    table: str,
    keys: Mapping[str, str],
    *,
    whole: bool,
    limit: int | None = None,
) -> Loaded:
    """Read `path` into `table`: the columns of `keys` (column → what the recipe calls it), or the `whole` of it; the
    first `limit` rows.

    Raises `DataError` for a file that is missing, of an unknown kind, broken, or without one of the keys.
    """
    files = find(path)
    with reading(path, lambda: _culprit(connection, files, path)):
        scan, kinds = _scan(connection, files, f"{table}_file")
        for name, key in keys.items():
            _refuse_missing(name, key, kinds, path)
        names = list(kinds if whole else keys)
        stop = f" limit {limit}" if limit is not None else ""
        connection.execute(f"create table {table} as select {', '.join(map(quoted, names))} from {scan}{stop}")
    columns = {name: kinds[name] for name in names}
    return Loaded(connection, path, files, scan, table, columns, text=_form(files[0]) == "csv")


@contextmanager
def reading(path: Path, culprit: Callable[[], Path] | None = None) -> Iterator[None]:
    """What goes wrong while a file is read becomes a `DataError` that names it; `culprit` finds it among several."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.FatalException):
        raise
    except UNREADABLE as error:
        raise _broken(culprit() if culprit else path, error) from None


def find(path: Path) -> tuple[Path, ...]:
    """The files that a path means: itself, all data files in a folder (by name), or all that match a pattern."""
    if path.is_dir():
        inside = (f for f in path.rglob("*") if f.is_file() and not _hidden(f.relative_to(path)))
        files = sorted(f for f in inside if _form(f))
        if not files:
            raise DataError("the folder has no data files", where=str(path), expected=f"files in {', '.join(FORMS)}")
    elif path.exists():
        files = [path]
    else:
        pattern = path.name if path.parent.is_dir() and set(path.name) & set("*?[") else ""
        files = sorted(f for f in path.parent.glob(pattern) if not _hidden(Path(f.name))) if pattern else []
        if not files:
            beside = [f.name for f in path.parent.iterdir()] if path.parent.is_dir() else []
            near = nearest(path.name, beside)
            raise DataError(f"there is no such file{near}", where=str(path), remedy="Give its path as it is.")
    forms = {_form(file): file for file in files}
    if "" in forms:
        raise DataError(
            f"the kind of '{forms[''].name}' is unknown",
            where=str(path),
            expected=f"a name that ends in {', '.join(FORMS)}",
            remedy="Convert the file, or give it the name it should have.",
        )
    if len(forms) > 1:
        both = " and ".join(f"'{file.name}'" for file in forms.values())
        raise DataError(f"files of several kinds: {both}", where=str(path), expected="one kind of file")
    return tuple(files)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _culprit(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], path: Path) -> Path:
    """The first file that cannot be read by itself; `path`, if each of them can."""
    for file in files:
        try:
            scan, kinds = _scan(connection, (file,), "tried")
            connection.execute(f"select bit_xor(hash({', '.join(map(quoted, kinds))})) from {scan}").fetchall()
        except UNREADABLE:
            return file
    return path


def _scan(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], name: str) -> tuple[str, dict[str, str]]:
    """What to write after FROM to read these files, and their columns with their DuckDB types."""
    form = _form(files[0])
    if form == "csv":
        return _csv_scan(files)
    if form == "arrow":
        for file in files:
            _refuse_invalid(file)
        connection.register(name, pyarrow.dataset.dataset([str(f) for f in files], format="ipc"))
        scan = name
    else:
        scan = f"read_parquet({_list(files)}, binary_as_string = true, hive_partitioning = false)"
    described = connection.execute(f"describe select * from {scan}").fetchall()
    return scan, {column[0]: column[1] for column in described}


def _refuse_invalid(file: Path) -> None:
    """Raises what Arrow raises for a file whose bytes are no columns: who reads it unchecked may crash."""
    with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches):
            reader.get_batch(number).validate(full=True)


def _csv_scan(files: Sequence[Path]) -> tuple[str, dict[str, str]]:
    delimiter, names, skip = _header(files[0])
    for file in files[1:]:
        if (other := _header(file)) != (delimiter, names, skip):
            raise DataError(
                f"the first line is {_shown(other[1])}",
                where=str(file),
                expected=f"{_shown(names)}, as in {files[0].name}",
                remedy="Give every file the same columns in the same order.",
            )
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    scan = (
        f"read_csv({_list(files)}, auto_detect = false, header = false, skip = {skip}, delim = {literal(delimiter)}, "
        f"quote = '\"', escape = '\"', columns = {{{columns}}})"
    )
    return scan, dict.fromkeys(names, "VARCHAR")


def _header(file: Path) -> tuple[str, list[str], int]:
    """The delimiter, the names in the first line, and how many lines it takes."""
    opening = gzip.open if file.name.endswith(".gz") else open
    with opening(file, "rb") as stream:
        text = stream.read(1 << 20).decode("utf-8-sig", errors="replace")
    first = text.partition("\n")[0]
    candidates = "\t" if ".tsv" in file.suffixes else ",;\t|"
    delimiter = next((d for d in candidates if d in first), candidates[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = next(reader, [])
    if not any(names):
        raise DataError("the file is empty", where=str(file), expected="a first line with the names of the columns")
    names = [name or f"column{i}" for i, name in enumerate(names)]
    twice = [name for i, name in enumerate(names) if name.lower() in map(str.lower, names[:i])]
    if twice:
        raise DataError(
            f"two columns are named '{twice[0]}'", where=str(file), expected="names that differ", remedy="Rename one."
        )
    return delimiter, names, reader.line_num


def _refuse_missing(name: str, key: str, columns: Mapping[str, str], path: Path) -> None:
    if name not in columns:
        raise DataError(
            f"there is no column '{name}'{nearest(name, columns)}",
            where=str(path),
            expected=f"one of {_shown(list(columns))}",
            remedy=f"Set {key} to the column's name.",
        )


def _broken(path: Path, error: Exception) -> DataError:
    words = str(error).strip().splitlines() or [type(error).__name__]
    place = next((line.split(" = ", 1)[1] for line in words if line.strip().startswith("file = ")), str(path))
    if _form(Path(place)) == "csv" and (odd := _odd_line(Path(place))):
        return odd
    told = [line for line in words if line.startswith(("Invalid unicode", "Value with unterminated"))]
    what = ". ".join([words[0].split(" Error: ", 1)[-1].rstrip("."), *(line.rstrip(".") for line in told)])
    return DataError(f"the file cannot be read: {what}", where=place, remedy="Write or copy the file again.")


def _odd_line(file: Path) -> DataError | None:
    """What to say of the first line of a csv that has other columns, or another end, than its first line."""
    with suppress(*UNREADABLE, csv.Error, UnicodeDecodeError), _text(file) as text:
        ends: list[str] = []
        delimiter, names, _ = _header(file)
        reader = csv.reader(_noting_ends(text, ends), delimiter=delimiter, strict=True)
        for values in reader:
            if values and len(values) != len(names):
                return DataError(
                    f"{_counted(len(values))}: {delimiter.join(values)[:80]!r}",
                    where=f"{file}, line {reader.line_num}",
                    expected=f"{len(names)}, as the first line names",
                    remedy="Correct that line, or remove it.",
                )
            if ends[-1] != ends[0] and ends[-1]:
                return DataError(
                    f"the line ends with {ends[-1]!r}",
                    where=f"{file}, line {reader.line_num}",
                    expected=f"{ends[0]!r}, as after the first line",
                    remedy="Write the file again with one kind of line end (dos2unix does).",
                )
    return None


def _noting_ends(text: Iterable[str], ends: list[str]) -> Iterator[str]:
    """The lines of a text, whose line ends are left in `ends`, the first and the last seen."""
    for line in text:
        ends[1:] = [line[len(line.rstrip("\r\n")) :]]
        yield line


def _counted(values: int) -> str:
    return f"{values} values" if values != 1 else "1 value"


def _text(file: Path) -> TextIO:
    opening = gzip.open if file.name.endswith(".gz") else open
    return io.TextIOWrapper(opening(file, "rb"), "utf-8-sig", newline="")


def _form(file: Path) -> str:
    return next((form for end, form in FORMS.items() if file.name.lower().endswith(end)), "")


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _list(files: Sequence[Path]) -> str:
    """SQL for exactly these files: a `[`, `*` or `?` in a name is no pattern."""
    return "[" + ", ".join(literal(_plain(str(file))) for file in files) + "]"


def _plain(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
