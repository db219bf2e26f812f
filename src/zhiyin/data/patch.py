"""What is known now of items that were put since, in the form that filters read, laid over a release's attributes."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from zhiyin.data.attributes import Answers, Attributes, Kept, Kind
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Rows


class Patch:
    """The attributes of some rows, in the place of a release's; its columns are the release's, whatever else is known.

    A value of another kind than its column's counts as missing: `misfit` says which are.
    """

    def __init__(
        self,
        base: Attributes,
        records: Mapping[int, Mapping[str, Any]],
        separators: Mapping[str, str],
        gone: Rows,
        size: int,
    ) -> None:
        """`records`: what is known, by row; `separators`: what parts the text of columns that hold several values;
        `gone`: rows that pass no filter; `size`: how many rows there are now."""
        self._base, self._records, self._separators, self._gone, self._size = base, records, separators, gone, size
        self.answers = Answers()

    @cached_property
    def attributes(self) -> Attributes:
        """One row for each record, in their order. Made when the first filter comes."""
        columns = {
            name: _column(
                kind,
                self._base.column(name).type,
                [_fitting(record.get(name), kind, self._separators.get(name, "")) for record in self._records.values()],
            )
            for name, kind in self._base.kinds.items()
        }
        return Attributes.of(Table(pa.table(columns)) if columns else Table.of({}, len(self._records)))

    def laid_over(self, kept: Kept, changed: Kept) -> Kept:
        """bool [size] which rows pass: `kept` [m] of the release's, `changed` of the records."""
        passing = np.zeros(self._size, bool)
        passing[: len(kept)] = kept
        passing[np.fromiter(self._records, np.int64, len(self._records))] = changed
        passing[self._gone] = False
        return passing


def misfit(kind: Kind, value: Any, separator: str = "") -> bool:
    """Whether a JSON value is none that an attribute of this kind can have. Nothing, and text without characters, is a
    missing value of any."""
    return _fitting(value, kind, separator) is None and value is not None and value != ""


def _fitting(value: Any, kind: Kind, separator: str) -> Any:
    """The value as its column holds it; None for what is missing or of another kind."""
    if kind == "text":
        return value if isinstance(value, str) and value else None
    if kind == "true or false":
        return value if isinstance(value, bool) else None
    if kind == "number":
        return value if _is_number(value) else None
    if kind == "list of text" and isinstance(value, str) and separator:
        return [part.strip() for part in value.split(separator) if part.strip()] if value else None
    if not isinstance(value, list | tuple):
        return None
    of_text = kind == "list of text"
    fits = all(
        one is None or (isinstance(one, str) if of_text else _is_number(one) and one == int(one)) for one in value
    )
    return list(value) if fits else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _column(kind: Kind, like: Any, values: list[Any]) -> pa.Array:
    """The values as Arrow, to be laid out as the release's column of type `like` was. Whole numbers become fractions
    where one of them is, or is too large."""
    if kind == "true or false":
        return pa.array(values, pa.bool_())
    if kind == "text":
        return pa.array(values, pa.large_string())
    if kind == "list of text":
        return pa.array(values, pa.large_list(pa.large_string()))
    if kind == "list of numbers":
        whole = _whole([one for value in values if value for one in value])
        lists = [None if value is None else [None if one is None else int(one) for one in value] for value in values]
        return pa.array(lists, pa.large_list(pa.int64() if whole is None else whole))
    numbers = _whole(values) if pa.types.is_integer(like) else None
    if numbers is None:
        kept = like if pa.types.is_floating(like) else pa.float64()
        return pa.array([None if value is None else float(value) for value in values], pa.float64()).cast(
            kept, safe=False
        )
    return pa.array([None if value is None else int(value) for value in values], numbers)


def _whole(values: list[Any]) -> Any:
    """The type of whole numbers that holds all of these; None where none does."""
    there = [value for value in values if value is not None]
    if any(value != int(value) for value in there):
        return None
    least, most = min(there, default=0), max(there, default=0)
    if least >= -(2**63) and most < 2**63:
        return pa.int64()
    return pa.uint64() if least >= 0 and most < 2**64 else None
