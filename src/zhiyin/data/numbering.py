"""Users and items get their rows: known ids keep theirs, new ones follow in the order of their UTF-8 bytes."""
# ruff: noqa: S608 – every name in a query went through `quoted`

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa

from zhiyin.data import checks, columns
from zhiyin.data.prepared import Prepared
from zhiyin.data.readers import Loaded, load, quoted
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.errors import DataError


@dataclass(frozen=True, slots=True)
class Side:
    """The users or the items: their ids, a table with a row for each, and how many that table knows nothing of."""

    ids: Vocabulary
    table: Table
    bare: int = 0

    @classmethod
    def none(cls) -> Self:
        return cls(Vocabulary.of(()), Table.of({}))

    @classmethod
    def of_users(cls, data: Prepared) -> Self:
        return cls(data.users, data.user_table)

    @classmethod
    def of_items(cls, data: Prepared) -> Self:
        return cls(data.items, data.item_table)


def numbered(
    connection: duckdb.DuckDBPyConnection,
    log: Loaded,
    name: str,
    side: str,
    path: Path | None,
    other_name: str,
    old: Side,
) -> Side:
    """The ids of the log, its table and `old`, whose rows stay.

    Leaves the DuckDB table `{side}_rows` behind: raw (the value in the log) → row.
    """
    column = quoted(name)
    connection.execute(f"create table {side}_values as select distinct {column} from log")
    sql = checks.ids(log, name, f"data.{side}", f"{side}_values")
    connection.execute(f"create view {side}_seen as select {column} as raw, {sql} as id from {side}_values")
    names = _read_table(connection, path, side, other_name or name) if path else None
    ids = _number(connection, side, old.ids, with_table=names is not None)
    if names is None:
        return Side(ids, _longer(old.table, len(ids)))
    mentioned = f"(select id from {side}_seen union select id from {side}_known)"
    bare = connection.execute(f"select count(*) from {mentioned} anti join {side}_table using (id)").fetchall()[0][0]
    if not names:
        return Side(ids, Table.of({}, len(ids)), int(bare))
    chosen = ", ".join(f"value{i} as {quoted(one)}" for i, one in enumerate(names))
    ids_of_all = f"(select id, row from {side}_known union select id, row from {side}_rows)"
    ordered = f"select {chosen} from {ids_of_all} i left join {side}_table using (id) order by i.row"
    return Side(ids, Table(connection.sql(ordered).to_arrow_table()), int(bare))


def _number(connection: duckdb.DuckDBPyConnection, side: str, known: Vocabulary, *, with_table: bool) -> Vocabulary:
    """Rows for the ids that are not known yet, after those that are: the DuckDB table `{side}_rows`."""
    connection.register("known", pa.table({"id": known.arrow(), "row": np.arange(len(known), dtype=np.int32)}))
    connection.execute(f"create table {side}_known as select * from known")
    connection.unregister("known")
    union = f" union all select null, id from {side}_table" if with_table else ""
    rank = f"dense_rank() over (partition by row is null order by id) + {len(known) - 1}"
    connection.execute(
        f"create table {side}_rows as select raw, id, coalesce(row, {rank})::integer as row "
        f"from (select raw, id from {side}_seen{union}) left join {side}_known using (id)"
    )
    new = connection.sql(f"select id, row from {side}_rows where row >= {len(known)} order by row").to_arrow_table()
    first = np.diff(new.column("row").to_numpy(), prepend=-1) > 0
    return known.extended(new.column("id").filter(pa.array(first)))


def _longer(table: Table, length: int) -> Table:
    """With rows of missing values at the end."""
    if not list(table):
        return Table.of({}, length)
    more = pa.table({name: pa.nulls(length - table.length, table.arrow.field(name).type) for name in table})
    return Table(pa.concat_tables([table.arrow, more]))


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
