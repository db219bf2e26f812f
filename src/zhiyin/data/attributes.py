"""What is known of each item in the form that filters read: one Arrow file, memory-mapped, and the answers made of it.

Text is kept as codes and a dictionary, so that a test looks at each distinct value once. Missing values are null, NaN
among them; dates and timestamps are Unix seconds; text that a bag feature parts is a list.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zhiyin.data.tables import Table

Kind = Literal["text", "number", "true or false", "list of text", "list of numbers"]

Kept = NDArray[np.bool_]
"""[m] which items an expression lets pass; never written to."""

MOST_KEPT = 256
"""Answers that are kept, the newest used."""

MOST_BYTES = 256 << 20
"""Bytes that kept answers may hold together; one is kept in any case."""

_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class Answers:
    """What passes which filter, remembered for as many as there is room, the newest used. Safe from many threads at
    once."""

    __slots__ = ("_answers", "_lock")

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Kept] = OrderedDict()
        self._lock = Lock()

    def of(self, text: str, make: Callable[[], Kept]) -> Kept:
        """What was kept under `text`, or else what `make` says, which is kept then."""
        with self._lock:
            if text in self._answers:
                self._answers.move_to_end(text)
                return self._answers[text]
        made = make()
        made.setflags(write=False)
        with self._lock:
            made = self._answers.setdefault(text, made)
            self._answers.move_to_end(text)
            while len(self._answers) > max(1, min(MOST_KEPT, MOST_BYTES // max(1, len(made)))):
                self._answers.popitem(last=False)
        return made


class Attributes:
    """One column an attribute, one row an item, and a bounded cache of which items pass what. Safe from many threads at
    once."""

    __slots__ = ("_arrow", "answers", "kinds")

    def __init__(self, arrow: pa.Table) -> None:
        """`arrow`: a table as `of` lays it out, each column in one piece."""
        self._arrow, self.answers = arrow, Answers()
        self.kinds: dict[str, Kind] = {one.name: _kind(one.type) for one in arrow.schema if one.name}

    @classmethod
    def of(cls, table: Table, separators: Mapping[str, str] | None = None) -> Self:
        """The attributes in a table: its columns of text, numbers, truth values, dates, and lists of text or whole
        numbers. Others (vectors, lists of fractions, records) are left out. `separators`: for columns of text that hold
        several values, what parts them."""
        columns = {}
        for name in table:
            laid = _laid_out(table.arrow.column(name), (separators or {}).get(name, ""))
            if laid is not None:
                columns[name] = laid
        return cls(pa.table(columns or {"": pa.nulls(table.length)}))

    @classmethod
    def open(cls, path: Path) -> Self:
        """The attributes saved at `path`, memory-mapped."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def save(self, path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._arrow.schema) as writer:
            writer.write_table(self._arrow.combine_chunks(), max_chunksize=max(1, len(self)))

    def __len__(self) -> int:
        return int(self._arrow.num_rows)

    def column(self, name: str) -> Any:
        """The Arrow array of one attribute: text as a dictionary of it, a list as one of such."""
        column = self._arrow.column(name)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _kind(one: pa.DataType) -> Kind:
    if pa.types.is_large_list(one):
        return "list of text" if pa.types.is_large_string(one.value_type.value_type) else "list of numbers"
    if pa.types.is_dictionary(one):
        return "text"
    return "true or false" if pa.types.is_boolean(one) else "number"


def _laid_out(column: pa.ChunkedArray, separator: str) -> pa.Array | None:
    """The column as filters read it; None for a type that they do not."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return _list(column.cast(pa.large_list(kind.value_type)).combine_chunks())
    if _is_text(kind):
        text = column.cast(pa.large_string()).combine_chunks()
        return _parted(text, separator) if separator else text.dictionary_encode()
    if pa.types.is_boolean(kind):
        return column.combine_chunks()
    return _number(column)


def _number(column: pa.ChunkedArray) -> pa.Array | None:
    """Whole numbers in 64 bits; float32 and float64 without NaN and without -0.0; dates as Unix seconds."""
    kind = column.type
    if pa.types.is_unsigned_integer(kind):
        return column.cast(pa.uint64()).combine_chunks()
    if pa.types.is_integer(kind):
        return column.cast(pa.int64()).combine_chunks()
    if pa.types.is_date32(kind):
        return pc.multiply(column.cast(pa.int32()).cast(pa.float64()), 86400.0).combine_chunks()
    if pa.types.is_date64(kind) or pa.types.is_timestamp(kind):
        unit = "ms" if pa.types.is_date64(kind) else kind.unit
        return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), _UNITS[unit]).combine_chunks()
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not pa.types.is_floating(kind):
        return None
    values = column.combine_chunks()
    real = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return pc.add(real, pa.scalar(0, values.type))


def _parted(text: pa.Array, separator: str) -> pa.Array:
    """Text parted into a list, as a bag feature parts it: trimmed, without empty parts."""
    parts = pc.split_pattern(text, separator)
    trimmed = pc.utf8_trim_whitespace(parts.flatten())
    words = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
    return _list(pa.LargeListArray.from_arrays(_offsets(parts), words, mask=parts.is_null()))


def _list(lists: pa.LargeListArray) -> pa.Array | None:
    """Lists of text or whole numbers, their values as codes and a dictionary; nothing lies under a missing list."""
    kind = lists.type.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind):
        values = lists.flatten().cast(pa.large_string())
    elif pa.types.is_integer(kind):
        values = lists.flatten().cast(pa.uint64() if pa.types.is_unsigned_integer(kind) else pa.int64())
    else:
        return None
    return pa.LargeListArray.from_arrays(_offsets(lists), values.dictionary_encode(), mask=lists.is_null())


def _offsets(lists: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
