"""Bad input: each error names the file, the column and the value, what was expected and the way out."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from zhiyin import spec
from zhiyin.data.sources import Source, prepare
from zhiyin.errors import DataError, SpecError


def refused(source: Source, tmp_path: Path) -> str:
    """The message of the `DataError`; nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "prepared")
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value).replace(str(tmp_path) + "/", "")


CSV = {
    "no rows": ("user,item,time\n", "s", "log.csv: the log has no events; expected at least one row"),
    "no header": (
        "",
        "s",
        "log.csv: the file is empty; expected a first line with the names of the columns",
    ),
    "twice": (
        "user,item,time,User\nu,i,1,2\n",
        "s",
        "log.csv: two columns are named 'User'; expected names that differ. Rename one.",
    ),
    "missing": (
        "users,item,time\nu,i,1\n",
        "s",
        "log.csv: there is no column 'user' (did you mean 'users'?); expected one of users, item, time. "
        "Set data.user to the column's name.",
    ),
    "ragged": (
        "user,item,time\nu,i,1\nu,i\n",
        "s",
        "log.csv, line 3: 2 values: 'u,i'; expected 3, as the first line names. Correct that line, or remove it.",
    ),
    "ragged after a quoted line end": (
        'user,item,time\r\n"u\n1",i,1\r\nu,i,2,more\n',
        "s",
        "log.csv, line 4: 4 values: 'u,i,2,more'; expected 3, as the first line names. "
        "Correct that line, or remove it.",
    ),
    "line ends mixed": (
        "user,item,time\r\nu,i,1\r\nu,i,2\nu,i,3\r\n",
        "s",
        "log.csv, line 3: the line ends with '\\n'; expected '\\r\\n', as after the first line. "
        "Write the file again with one kind of line end (dos2unix does).",
    ),
    "no user": (
        "user,item,time\nu,i,1\n,i,2\n,i,3\n,i,4\n",
        "s",
        "log.csv, row 2: column 'user' has no id (and 2 more like it); expected an id in every row. "
        "Remove those rows, or give them ids.",
    ),
    "blank item": (
        'user,item,time\nu," ",1\n',
        "s",
        "log.csv, row 1: column 'item' has no id; expected an id in every row. Remove those rows, or give them ids.",
    ),
    "no time": (
        "user,item,time\nu,i,1\nu,i,\n",
        "s",
        "log.csv, row 2: column 'time' has no time; expected a time in every row. "
        "Remove those rows, or give them times.",
    ),
    "text time": (
        "user,item,time\nu,i,1\nu,i,yesterday\n",
        "s",
        "log.csv, row 2: column 'time' is 'yesterday'; expected a number (data.time_unit = 's'). "
        'Set data.time_unit = "iso" if these are dates or timestamps, or data.time to another column.',
    ),
    "nan": (
        "user,item,time\nu,i,1\nu,i,nan\n",
        "s",
        "log.csv, row 2: column 'time' is nan; expected finite times. Remove or correct those rows.",
    ),
    "infinite": (
        "user,item,time\nu,i,1\nu,i,-inf\n",
        "s",
        "log.csv, row 2: column 'time' is -inf; expected finite times. Remove or correct those rows.",
    ),
    "negative": (
        "user,item,time\nu,i,1\nu,i,-5\n",
        "s",
        "log.csv, row 2: column 'time' is negative (-5); expected times from 1970 on. Remove or correct those rows.",
    ),
    "negative position": (
        "user,item,time\nu,i,1\nu,i,-5\n",
        "position",
        "log.csv, row 2: column 'time' is negative (-5); expected positions from 0 on. Remove or correct those rows.",
    ),
    "half a position": (
        "user,item,time\nu,i,1\nu,i,1.5\n",
        "position",
        "log.csv, row 2: column 'time' is 1.5; expected whole numbers (data.time_unit = 'position'). "
        'Set data.time_unit = "s" if these are seconds.',
    ),
    "milliseconds": (
        "user,item,time\nu,i,1700000000000\nu,i,1700000000001\n",
        "s",
        "log.csv, row 2: column 'time' is 1700000000001, which in seconds is the year 55,841; expected times between "
        '1980 and 2200. They look like milliseconds: set data.time_unit = "ms".',
    ),
    "nanoseconds": (
        "user,item,time\nu,i,1700000000000000000\n",
        "us",
        "log.csv, row 1: column 'time' is 1700000000000000000, which in microseconds is the year 55,841; expected "
        'times between 1980 and 2200. They look like nanoseconds: set data.time_unit = "ns".',
    ),
    "seconds": (
        "user,item,time\nu,i,1700000000\n",
        "ms",
        "log.csv, row 1: column 'time' is 1700000000, which in milliseconds is 1970-01-20; expected times between "
        '1980 and 2200. They look like seconds: set data.time_unit = "s".',
    ),
    "an outlier": (
        "user,item,time\nu,i,1\nu,i,99999999999\n",
        "s",
        "log.csv, row 2: column 'time' is 99999999999, which in seconds is the year 5,139; expected times between 1980 "
        'and 2200. Correct that row, or set data.time_unit = "position" if the column is no clock time.',
    ),
    "a number as a date": (
        "user,item,time\nu,i,1700000000\n",
        "iso",
        "log.csv: column 'time' is a number, and data.time_unit is 'iso'; expected dates or timestamps. Set "
        "data.time_unit to 's', 'ms', 'us' or 'ns' if these are numbers since 1970, or to 'position'.",
    ),
    "no date": (
        "user,item,time\nu,i,2024-01-02\nu,i,2024-13-02\n",
        "iso",
        "log.csv, row 2: column 'time' is '2024-13-02'; expected a date or a timestamp such as 2024-03-01T12:30:00Z. "
        "Remove or correct those rows.",
    ),
    "before 1970": (
        "user,item,time\nu,i,1969-12-31\n",
        "iso",
        "log.csv, row 1: column 'time' is negative (1969-12-31); expected times from 1970 on. "
        "Remove or correct those rows.",
    ),
}


@pytest.mark.parametrize("case", CSV)
def test_a_bad_csv(tmp_path: Path, case: str) -> None:
    text, unit, message = CSV[case]
    (tmp_path / "log.csv").write_text(text)
    table: dict[str, object] = {"events": str(tmp_path / "log.csv"), "time_unit": unit}
    assert refused(spec.build(Source, table), tmp_path) == message


TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "nested user": (
        {"user": [["u"]], "item": ["i"], "time": [1]},
        "log.parquet: column 'user' is a list; expected ids: text or whole numbers. "
        "Set data.user to the column that holds them.",
    ),
    "record item": (
        {"user": ["u"], "item": [{"id": 1}], "time": [1]},
        "log.parquet: column 'item' is a record; expected ids: text or whole numbers. "
        "Set data.item to the column that holds them.",
    ),
    "fraction": (
        {"user": [1.0, 1.5], "item": ["i", "i"], "time": [1, 1]},
        "log.parquet, row 2: column 'user' holds 1.5; expected ids: text, or whole numbers small enough to be exact. "
        "Write the column as text, or set data.user to another column.",
    ),
    "large float": (
        {"user": ["u"], "item": [2.0**60], "time": [1]},
        "log.parquet, row 1: column 'item' holds 1.152921504606847e+18; expected ids: text, or whole numbers small "
        "enough to be exact. Write the column as text, or set data.item to another column.",
    ),
    "no number": (
        {"user": [float("nan"), 1.0], "item": ["i", "i"], "time": [1, 1]},
        "log.parquet, row 1: column 'user' holds nan; expected ids: text, or whole numbers small enough to be exact. "
        "Write the column as text, or set data.user to another column.",
    ),
    "null id": (
        {"user": [1, None], "item": ["i", "i"], "time": [1, 1]},
        "log.parquet, row 2: column 'user' has no id; expected an id in every row. "
        "Remove those rows, or give them ids.",
    ),
    "text time": (
        {"user": ["u"], "item": ["i"], "time": ["1"]},
        "log.parquet: column 'time' is text; expected a number (data.time_unit = 's'). "
        'Set data.time_unit = "iso" if these are dates or timestamps, or data.time to another column.',
    ),
    "dates": (
        {"user": ["u"], "item": ["i"], "time": pa.array([0], pa.timestamp("us"))},
        "log.parquet: column 'time' is a date or timestamp; expected a number (data.time_unit = 's'). "
        'Set data.time_unit = "iso" if these are dates or timestamps, or data.time to another column.',
    ),
    "nan time": (
        {"user": ["u", "u"], "item": ["i", "i"], "time": [float("nan"), float("inf")]},
        "log.parquet, row 1: column 'time' is nan (and 1 more like it); expected finite times. "
        "Remove or correct those rows.",
    ),
    "infinite column": (
        {"user": ["u", "u"], "item": ["i", "i"], "time": [1, 2], "rating": [1.0, float("inf")]},
        "log.parquet, row 2: column 'rating' holds inf; expected finite numbers. "
        "Leave the value empty where it is not known.",
    ),
}


@pytest.mark.parametrize("case", TYPES)
def test_a_bad_parquet(tmp_path: Path, case: str) -> None:
    columns, message = TYPES[case]
    pa.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    kept = ("rating",) if "rating" in columns else ()
    assert refused(Source(tmp_path / "log.parquet", columns=kept), tmp_path) == message


TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "twice": (
        {"item": ["a", "b", "a", "b", "a"]},
        "items.parquet, row 5: the item 'a' has several rows (and 1 more like it), the first of them items.parquet, "
        "row 1; expected one row for each item. Keep one row of each.",
    ),
    "empty": (
        {"item": pa.array([], pa.string())},
        "items.parquet: the table has no rows; expected one row for each item",
    ),
    "no id column": (
        {"id": ["a"]},
        "items.parquet: there is no column 'item'; expected one of id. Set data.item_id to the column's name.",
    ),
    "null id": (
        {"item": ["a", None]},
        "items.parquet, row 2: column 'item' has no id; expected an id in every row. "
        "Remove those rows, or give them ids.",
    ),
    "infinite": (
        {"item": ["a", "b"], "price": [float("-inf"), 1.0]},
        "items.parquet, row 1: column 'price' holds -inf; expected finite numbers. "
        "Leave the value empty where it is not known.",
    ),
    "a hole in a vector": (
        {"item": ["a", "b"], "vector": [[1.0, 2.0], [1.0, float("nan")]]},
        "items.parquet, row 2: column 'vector' holds [1.0, nan]; expected finite numbers. "
        "Leave the value empty where it is not known.",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table(tmp_path: Path, case: str) -> None:
    columns, message = TABLES[case]
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\n")
    pa.parquet.write_table(pa.table(columns), tmp_path / "items.parquet")
    assert refused(Source(tmp_path / "log.csv", items=tmp_path / "items.parquet"), tmp_path) == message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\n")
    assert refused(Source(tmp_path / "lob.csv"), tmp_path) == (
        "lob.csv: there is no such file (did you mean 'log.csv'?). Give its path as it is."
    )
    assert "nowhere/log.csv: there is no such file." in refused(Source(tmp_path / "nowhere" / "log.csv"), tmp_path)
    assert "no such file" in refused(Source(tmp_path / "*.parquet"), tmp_path)


def test_a_file_of_an_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text("{}")
    assert refused(Source(tmp_path / "log.json"), tmp_path) == (
        "log.json: the kind of 'log.json' is unknown; expected a name that ends in .parquet, .csv, .csv.gz, .tsv, "
        ".tsv.gz, .arrow, .feather. Convert the file, or give it the name it should have."
    )


def test_a_folder_without_data_or_of_several_kinds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    assert "log: the folder has no data files; expected files in .parquet" in refused(Source(log), tmp_path)
    (log / "a.csv").write_text("user,item,time\nu,i,1\n")
    (log / "b.tsv").write_text("user\titem\ttime\nu\ti\t1\n")
    assert "log/b.tsv: the first line is user, item, time" in refused(Source(log), tmp_path)
    (log / "b.tsv").unlink()
    (log / "b.parquet").write_bytes(b"")
    message = refused(Source(log), tmp_path)
    assert message == "log: files of several kinds: 'a.csv' and 'b.parquet'; expected one kind of file"


def test_files_of_one_log_have_the_same_columns_and_a_bad_row_is_named_by_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,time\nu,i,1\nu,i,2\n")
    (tmp_path / "b.csv").write_text("item,user,time\nu,i,1\n")
    assert refused(Source(tmp_path / "*.csv"), tmp_path) == (
        "b.csv: the first line is item, user, time; expected user, item, time, as in a.csv. "
        "Give every file the same columns in the same order."
    )
    (tmp_path / "b.csv").write_text("user,item,time\nu,i,1\n,i,1\n")
    assert refused(Source(tmp_path / "*.csv"), tmp_path).startswith("b.csv, row 2: column 'user' has no id")


@pytest.mark.parametrize("name", ["log.parquet", "log.arrow", "log.csv.gz", "latin.csv"])
def test_a_broken_file(tmp_path: Path, name: str) -> None:
    table = pa.table({"user": ["u"] * 1000, "item": ["i"] * 1000, "time": [1] * 1000})
    path = tmp_path / name
    pa.parquet.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-100] if name != "latin.csv" else b"user,item,time\n\xe9,i,1\n")
    message = refused(Source(path), tmp_path)
    assert message.startswith(f"{name}: the file cannot be read: ")
    assert message.endswith("Write or copy the file again.")


def arrow_file(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "ends half-way": lambda content: content[: len(content) // 2],
    "lacks its middle": lambda content: content[: len(content) // 3] + content[len(content) // 2 :],
    "has a hole of zeros": lambda content: (
        content[: len(content) // 3] + bytes(9999) + content[len(content) // 3 + 9999 :]
    ),
    "is empty": lambda content: b"",
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather", "csv.gz"])
def test_the_one_broken_file_among_several_is_named(tmp_path: Path, case: str, kind: str) -> None:
    count = 40_000
    table = pa.table({"user": [f"u{n % 997}" for n in range(count)], "item": [f"i{n}" for n in range(count)]})
    table = table.append_column("time", pa.array(range(count)))
    log = tmp_path / "log"
    log.mkdir()
    for name in "abc":
        path = log / f"{name}.{kind}"
        if kind == "csv.gz":
            path.write_bytes(
                gzip.compress(b"user,item,time\n" + b"".join(b"u,%d,%d\n" % (n, n) for n in range(count)), 1)
            )
        elif kind == "arrow":
            arrow_file(table, path)
        elif kind == "feather":
            pa.feather.write_feather(table, path)
        else:
            pa.parquet.write_table(table, path)
    path = log / f"b.{kind}"
    path.write_bytes(BROKEN[case](path.read_bytes()))
    message = refused(Source(log, time_unit="position"), tmp_path)
    assert message.startswith((f"log/b.{kind}: the file cannot be read: ", f"log/b.{kind}: the file is empty"))


def test_a_source_that_contradicts_itself() -> None:
    with pytest.raises(SpecError, match=r'expected time_unit = "position" for a log without a time column'):
        Source(Path("log.csv"), time="")
    with pytest.raises(SpecError, match="expected three columns that differ"):
        Source(Path("log.csv"), user="item")
    with pytest.raises(SpecError, match=r"'sec'.*expected one of 's', 'ms'"):
        spec.build(Source, {"events": "log.csv", "time_unit": "sec"}, "data")
