"""The SQL that reads a column as a feature's or a card's values, by the DuckDB type it has."""
# ruff: noqa: S608 – every name in a query went through `quoted`

import re

from zhiyin.data.readers import Loaded, quoted
from zhiyin.errors import DataError

WHOLE = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
}
FRACTIONS = {"FLOAT", "DOUBLE"}
CLOCKS = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"}
LISTS = {f"{kind}[]" for kind in (*WHOLE, "VARCHAR")}
VECTORS = r"(FLOAT|DOUBLE)\[\d*\]"
"""Lists of fractions, of any or of one length."""


def values(loaded: Loaded, names: list[str]) -> dict[str, str]:
    """SQL that reads each column as a feature's or a card's values: NaN and "" are missing, dates are text.

    Raises `DataError` for an infinite number, also inside a list, and for a list with a NaN in it.
    """
    kinds = loaded.kinds(names)
    return {name: _value(loaded, name, kind) for name, kind in kinds.items()}


def vector_width(loaded: Loaded, name: str) -> int:
    """How many numbers each of a column's lists has; 0 when they differ, or one has a hole."""
    vector = f"{quoted(name)}::float[]"
    shortest, longest, holes = loaded.one(
        f"select min(len({vector})), max(len({vector})), sum(len({vector}) - list_count({vector})) from {loaded.table}"
    )
    return int(longest) if longest and shortest == longest and not holes else 0


def _value(loaded: Loaded, name: str, kind: str) -> str:
    column = quoted(name)
    if kind in FRACTIONS or kind.startswith("DECIMAL"):
        number = f"try_cast({column} as double)" if kind != "FLOAT" else column
        _refuse_infinite(loaded, name, f"isinf({number})")
        return f"case when isnan({number}) then null else {number} end"
    if kind in WHOLE:
        return f"try_cast({column} as {'double' if kind in ('HUGEINT', 'UHUGEINT', 'UBIGINT') else kind})"
    if kind == "BOOLEAN":
        return f"try_cast({column} as boolean)"
    if re.fullmatch(VECTORS, kind):
        vector = f"{column}::float[]"
        _refuse_infinite(loaded, name, f"list_bool_or(list_transform({vector}, lambda x: not isfinite(x)))")
        width = vector_width(loaded, name)
        return f"{column}::float[{width}]" if width else vector
    return column if kind in LISTS else f"nullif({column}::varchar, '')"


def _refuse_infinite(loaded: Loaded, name: str, condition: str) -> None:
    count, row, value = loaded.first(condition, quoted(name))
    if count:
        raise DataError(
            f"column '{name}' holds {value}{and_more(count)}",
            where=loaded.where(row),
            expected="finite numbers",
            remedy="Leave the value empty where it is not known.",
        )


def and_more(count: int) -> str:
    """ " (and 2 more like it)", or nothing."""
    return "" if count == 1 else f" (and {count - 1:,} more like it)"
