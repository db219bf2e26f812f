"""Named columns of equal length, kept as one Arrow file and read one column at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

Column = NDArray[Any]
"""[n] numbers, or objects (strings, lists, None where a value is missing); [n, width] for vectors of one width."""


class Table(Mapping[str, Column]):
    """Columns of equal length. `table[name]` is a numpy array, made when asked for and not kept."""

    __slots__ = ("_arrow",)

    def __init__(self, arrow: pa.Table) -> None:
        self._arrow = arrow

    @classmethod
    def of(cls, columns: Mapping[str, object], length: int | None = None) -> "Table":
        """A table of these columns (lists or arrays); `length` rows and no columns when there are none."""
        if not columns:
            return cls(pa.table({"": pa.nulls(length or 0)}))
        return cls(pa.table({name: _arrow_array(values) for name, values in columns.items()}))

    def __getitem__(self, name: str) -> Column:
        if name not in self:
            raise KeyError(name)
        return to_numpy(self._arrow.column(name))

    def __contains__(self, name: object) -> bool:
        return bool(name) and name in self._arrow.column_names

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._arrow.column_names if name])

    def __len__(self) -> int:
        return len([name for name in self._arrow.column_names if name])

    def texts(self, name: str) -> tuple[Column, NDArray[np.int64]] | None:
        """A column of text as its distinct values, the last of them None, and where each row's stands among them; None
        for a column of anything else, or where most values are distinct."""
        column = self._arrow.column(name)
        if not len(column) or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return None
        chunks = column.dictionary_encode().unify_dictionaries().chunks
        if len(chunks[0].dictionary) > len(column) // 2:
            return None
        found = chunks[0].dictionary.to_pylist()
        distinct = np.empty(len(found) + 1, object)
        distinct[:-1] = found
        return distinct, np.concatenate(
            [one.indices.fill_null(len(found)).to_numpy() for one in chunks], dtype=np.int64
        )

    @property
    def length(self) -> int:
        """How many rows each column has."""
        return int(self._arrow.num_rows)

    @property
    def arrow(self) -> pa.Table:
        """The table as Arrow, for readers that want its types."""
        return self._arrow

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows start … stop-1 as plain Python values, without the missing ones."""
        part = self._arrow.slice(start, stop - start).to_pylist()
        return [{name: value for name, value in record.items() if name and value is not None} for record in part]

    def save(self, path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._arrow.schema) as writer:
            writer.write_table(self._arrow, max_chunksize=1 << 20)

    @classmethod
    def open(cls, path: Path) -> "Table":
        """The table saved at `path`, memory-mapped."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all())


def to_numpy(column: pa.ChunkedArray) -> Column:
    """Numbers as numbers (NaN where one is missing), lists of one width as a matrix, all else as objects; so are whole
    numbers that a float would round, where one is missing."""
    kind = column.type
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and _exact(column)):
        return np.asarray(column.to_numpy())
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        flat = column.combine_chunks()
        values = flat.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values).reshape(len(column), kind.list_size)
    objects = np.empty(len(column), object)
    objects[:] = column.to_pylist()
    return objects


def _exact(column: pa.ChunkedArray) -> bool:
    """Whether NaN can stand for the missing ones of these whole numbers, and floats for the others."""
    if not column.null_count:
        return True
    ends = pa.compute.min_max(column).as_py()
    return ends["min"] is None or max(abs(ends["min"]), abs(ends["max"])) <= 1 << 53


def _arrow_array(values: object) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
    return pa.array(values)
