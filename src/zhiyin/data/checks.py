"""What ids and times must be before anything is made of them, and the SQL that reads a column as one of them.

Each check raises a `DataError` that says where, what was found, what was expected and what to do.
"""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from zhiyin.data.columns import CLOCKS, FRACTIONS, WHOLE, and_more
from zhiyin.data.readers import Loaded, quoted
from zhiyin.errors import DataError

UNITS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
"""Milliseconds in one of each unit, as a fraction."""

NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

EARLIEST, LATEST = 631_152_000_000, 4_102_444_800_000
"""1990 and 2100: a log's clock times are expected between them when its unit is guessed."""

YEAR_1980, YEAR_2200 = 315_532_800_000, 7_258_118_400_000

DAY = 86_400_000
"""Milliseconds in a day."""

EXACT = 1 << 53
"""Above this, a float no longer tells two whole numbers apart."""


@dataclass(frozen=True, slots=True)
class Span:
    """SQL that reads a log's times as int64 (milliseconds, or positions), and the first and last of them."""

    sql: str
    first: int
    last: int


def ids(loaded: Loaded, name: str, key: str, among: str = "") -> str:
    """SQL that reads a column as ids: text as it stands, 7 and 7.0 as "7".

    `among`: a table with the column's distinct values, so that the log itself is searched only for the row to name.
    Raises `DataError` for a type that is no id, a missing or blank id, and a number that is no whole one.
    """
    kind, column = loaded.columns[name], quoted(name)
    among = among or loaded.table
    if kind in WHOLE:
        sql, wrong = f"{column}::varchar", f"{column} is null"
    elif kind in FRACTIONS or kind.startswith("DECIMAL"):
        number = f"{column}::double"
        sql, wrong = f"{number}::bigint::varchar", f"{column} is null"
        odd = f"not isfinite({number}) or {number} <> trunc({number}) or abs({number}) >= {EXACT}"
        count, row, value = _first(loaded, among, odd, column)
        if count:
            raise DataError(
                f"column '{name}' holds {value}{and_more(count)}",
                where=loaded.where(row),
                expected="ids: text, or whole numbers small enough to be exact",
                remedy=f"Write the column as text, or set {key} to another column.",
            )
    elif kind in ("VARCHAR", "UUID") or kind.startswith("ENUM"):
        text = f"{column}::varchar"
        sql, wrong = text, f"{column} is null or trim({text}) = ''"
        if loaded.text and _prints_as_floats(loaded, among, column):
            sql = f"regexp_replace({text}, '\\.0+$', '')"
    else:
        raise DataError(
            f"column '{name}' is {_words(kind)}",
            where=str(loaded.path),
            expected="ids: text or whole numbers",
            remedy=f"Set {key} to the column that holds them.",
        )
    count, row, _ = _first(loaded, among, wrong, column)
    if count:
        raise DataError(
            f"column '{name}' has no id{and_more(count)}",
            where=loaded.where(row),
            expected="an id in every row",
            remedy="Remove those rows, or give them ids.",
        )
    return sql


def unique(loaded: Loaded, sql: str, side: str) -> None:
    """Raises `DataError` when two rows have the same id."""
    repeated = f"select {sql} as id, min(rowid), max(rowid) from {loaded.table} group by 1 having count(*) > 1"
    found = loaded.connection.execute(f"select *, count(*) over () from ({repeated}) order by 2 limit 1").fetchall()
    if found:
        one, first, last, count = found[0]
        raise DataError(
            f"the {side} {one!r} has several rows{and_more(count)}, the first of them {loaded.where(first)}",
            where=loaded.where(last),
            expected=f"one row for each {side}",
            remedy="Keep one row of each.",
        )


def times(loaded: Loaded, name: str, unit: str) -> Span:
    """How to read the time column. Raises `DataError` for a wrong type, for times that are missing, not finite,
    negative or no times at all, and for a unit that puts them into another age."""
    if not name:
        return Span("rowid", 0, loaded.count() - 1)
    column = quoted(name)
    kind = loaded.kinds([name])[name]
    number = _date(column, kind) if unit == "iso" else _number(loaded, column, kind)
    if number is None:
        raise _not_a_time(loaded, name, kind, unit)
    _refuse_strange_times(loaded, name, number, floats=unit != "iso" and kind not in WHOLE)
    low, high = loaded.one(f"select min({number}), max({number}) from {loaded.table}")
    if low < 0:
        _, row, value = loaded.first(f"{number} < 0", column)
        raise DataError(
            f"column '{name}' is negative ({value})",
            where=loaded.where(row),
            expected="times from 1970 on" if unit != "position" else "positions from 0 on",
            remedy="Remove or correct those rows.",
        )
    if unit == "position" and kind not in WHOLE:
        _refuse_fractions(loaded, name, number)
    if unit in UNITS:
        _refuse_wrong_unit(loaded, name, number, unit, low, high)
    return _span(number, unit, low, high, whole=kind in WHOLE or unit == "iso")


def likely_unit(low: float, high: float) -> str | None:
    """The unit in which both lie between 1990 and 2100, if there is one."""
    for unit, (up, down) in UNITS.items():
        if low * up >= EARLIEST * down and high * up < LATEST * down:
            return unit
    return None


def of_this_age(unit: str, low: float, high: float) -> bool:
    """Whether times between these can be in this unit: none after 2200, and the newest after 1980, unless no other unit
    fits better."""
    up, down = UNITS[unit]
    newest = int(high) * up // down
    return newest < YEAR_2200 and (newest >= YEAR_1980 or likely_unit(low, high) is None)


def _number(loaded: Loaded, column: str, kind: str) -> str | None:
    if kind in WHOLE:
        return f"{column}::bigint"
    if kind in FRACTIONS or kind.startswith("DECIMAL"):
        return f"{column}::double"
    return None


def _date(column: str, kind: str) -> str | None:
    if kind in CLOCKS:
        return f"epoch_ms({column})"
    return f"epoch_ms(try_cast({column} as timestamptz))" if kind == "VARCHAR" else None


def _not_a_time(loaded: Loaded, name: str, kind: str, unit: str) -> DataError:
    if unit == "iso":
        return DataError(
            f"column '{name}' is {_words(kind)}, and data.time_unit is 'iso'",
            where=str(loaded.path),
            expected="dates or timestamps",
            remedy="Set data.time_unit to 's', 'ms', 'us' or 'ns' if these are numbers since 1970, or to 'position'.",
        )
    where, found = str(loaded.path), f"column '{name}' is {_words(kind)}"
    if loaded.text and kind == "VARCHAR":
        column = quoted(name)
        odd = f"{column} is not null and try_cast({column} as double) is null"
        count, row, value = loaded.first(odd, column)
        if count:
            where, found = loaded.where(row), f"column '{name}' is {value!r}{and_more(count)}"
    return DataError(
        found,
        where=where,
        expected=f"a number (data.time_unit = '{unit}')",
        remedy='Set data.time_unit = "iso" if these are dates or timestamps, or data.time to another column.',
    )


def _refuse_strange_times(loaded: Loaded, name: str, number: str, *, floats: bool) -> None:
    column = quoted(name)
    count, row, _ = loaded.first(f"{column} is null")
    if count:
        raise DataError(
            f"column '{name}' has no time{and_more(count)}",
            where=loaded.where(row),
            expected="a time in every row",
            remedy="Remove those rows, or give them times.",
        )
    strange = f"not isfinite({number})" if floats else f"{number} is null"
    count, row, value = loaded.first(strange, f"{column}::varchar")
    if count:
        raise DataError(
            f"column '{name}' is {value if floats else repr(value)}{and_more(count)}",
            where=loaded.where(row),
            expected="finite times" if floats else "a date or a timestamp such as 2024-03-01T12:30:00Z",
            remedy="Remove or correct those rows.",
        )


def _refuse_fractions(loaded: Loaded, name: str, number: str) -> None:
    count, row, value = loaded.first(f"{number} <> trunc({number})", quoted(name))
    if count:
        raise DataError(
            f"column '{name}' is {value}{and_more(count)}",
            where=loaded.where(row),
            expected="whole numbers (data.time_unit = 'position')",
            remedy='Set data.time_unit = "s" if these are seconds.',
        )


def _refuse_wrong_unit(loaded: Loaded, name: str, number: str, unit: str, low: float, high: float) -> None:
    up, down = UNITS[unit]
    likely = likely_unit(low, high)
    newest = int(high) * up // down
    if of_this_age(unit, low, high):
        return
    _, row, value = loaded.first(f"{number} = (select max({number}) from {loaded.table})", quoted(name))
    remedy = (
        f'They look like {NAMES[likely]}: set data.time_unit = "{likely}".'
        if likely
        else 'Correct that row, or set data.time_unit = "position" if the column is no clock time.'
    )
    raise DataError(
        f"column '{name}' is {value}, which in {NAMES[unit]} is {_year(newest)}",
        where=loaded.where(row),
        expected="times between 1980 and 2200",
        remedy=remedy,
    )


def _span(number: str, unit: str, low: float, high: float, *, whole: bool) -> Span:
    if unit in ("iso", "position") or UNITS[unit] == (1, 1):
        sql, up, down = number, 1, 1
    else:
        up, down = UNITS[unit]
        step = "//" if whole else "/"
        sql = f"{number} * {up}" if down == 1 else f"{number} {step} {down}"
    return Span(sql if whole else f"round({sql})::bigint", round(low * up) // down, round(high * up) // down)


def _first(loaded: Loaded, among: str, condition: str, value: str) -> tuple[int, int, Any]:
    if not loaded.one(f"select count(*) from {among} where {condition}")[0]:
        return 0, -1, None
    return loaded.first(condition, value)


def _prints_as_floats(loaded: Loaded, among: str, column: str) -> bool:
    """Whether every id is like 7.0: a column of whole numbers that something wrote as floats."""
    found = loaded.one(f"select bool_and(regexp_full_match({column}, '-?[0-9]+\\.0+')) from {among}")
    return bool(found[0])


def day(time: float, unit: str) -> str:
    """The day of a time in this unit."""
    up, down = UNITS[unit]
    return _year(int(time) * up // down)


def _year(milliseconds: int) -> str:
    year = 1970 + round(milliseconds / 31_556_952_000)
    if year < 2200:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"
    return f"the year {year:,}"


def _words(kind: str) -> str:
    if kind.endswith("]"):
        return "a list"
    if kind in FRACTIONS or kind in WHOLE or kind.startswith("DECIMAL"):
        return "a number"
    known = {"VARCHAR": "text", "BOOLEAN": "true or false", "BLOB": "bytes"}
    if kind in CLOCKS:
        return "a date or timestamp"
    return known.get(kind, "a record" if kind.startswith(("STRUCT", "MAP")) else kind.lower())
