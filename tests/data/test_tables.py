"""Tables: what a column is as numpy, and that a saved table is the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data.tables import Table, to_numpy


def test_columns_by_name() -> None:
    table = Table.of({"a": [1, 2], "b": ["x", None]})
    assert list(table) == ["a", "b"]
    assert len(table) == 2
    assert table.length == 2
    assert "a" in table
    assert "" not in table
    assert "c" not in table
    with pytest.raises(KeyError, match="c"):
        table["c"]


@pytest.mark.parametrize("length", [0, 3])
def test_a_table_without_columns_has_rows(length: int) -> None:
    table = Table.of({}, length)
    assert list(table) == []
    assert len(table) == 0
    assert table.length == length
    assert table.records(0, length) == [{}] * length
    with pytest.raises(KeyError):
        table[""]


KINDS: list[tuple[Any, Any, list[Any]]] = [
    ([1, 2], np.int64, [1, 2]),
    (pa.array([1, 2], pa.int16()), np.int16, [1, 2]),
    (pa.array([1, 2**63], pa.uint64()), np.uint64, [1, 2**63]),
    ([1.5, 2.0], np.float64, [1.5, 2.0]),
    (pa.array([1.5], pa.float32()), np.float32, [1.5]),
    ([True, False], np.bool_, [True, False]),
    ([True, None], object, [True, None]),
    (["x", None], object, ["x", None]),
    ([["a", "b"], ["c", "d"]], object, [["a", "b"], ["c", "d"]]),
    ([["a"], None, []], object, [["a"], None, []]),
    ([[1, 2], [3]], object, [[1, 2], [3]]),
    ([2**53 + 1, None], object, [2**53 + 1, None]),
    ([-(2**53) - 1, None], object, [-(2**53) - 1, None]),
    (pa.array([], pa.int64()), np.int64, []),
    (pa.nulls(2), object, [None, None]),
    (pa.array(["x", "y"]).dictionary_encode(), object, ["x", "y"]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), KINDS, ids=[str(values)[:30] for values, _, _ in KINDS])
def test_what_a_column_is(values: Any, kind: Any, expected: list[Any]) -> None:
    column = Table.of({"x": values})["x"]
    assert column.dtype == kind
    assert column.shape == (len(expected),)
    assert column.tolist() == expected


def test_a_missing_number_is_nan() -> None:
    for values in ([1, None, 3], [1.0, None, 3.0], pa.array([None, None], pa.int32())):
        column = Table.of({"x": values})["x"]
        assert column.dtype == np.float64
        assert np.isnan(column).tolist() == [value is None for value in pa.array(values).to_pylist()]


def test_vectors_of_one_width_are_a_matrix_also_in_part() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    table = Table.of({"x": matrix})
    np.testing.assert_array_equal(table["x"], matrix)
    assert table["x"].dtype == np.float32
    np.testing.assert_array_equal(Table(table.arrow.slice(1, 2))["x"], matrix[1:])
    np.testing.assert_array_equal(Table(pa.concat_tables([table.arrow, table.arrow]))["x"], np.r_[matrix, matrix])
    np.testing.assert_array_equal(Table.of({"x": np.asfortranarray(matrix)})["x"], matrix)


def test_vectors_with_a_missing_one_are_lists() -> None:
    column = to_numpy(pa.chunked_array([pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))]))
    assert column.dtype == object
    assert column.tolist() == [[1.0, 2.0], None]


def test_records_are_plain_values_without_the_missing() -> None:
    table = Table.of({"a": [1, None, 3], "b": [["x"], [], None], "v": np.ones((3, 2), np.float32)})
    assert table.records(0, 3) == [
        {"a": 1, "b": ["x"], "v": [1.0, 1.0]},
        {"b": [], "v": [1.0, 1.0]},
        {"a": 3, "v": [1.0, 1.0]},
    ]
    assert table.records(2, 3) == [{"a": 3, "v": [1.0, 1.0]}]
    assert table.records(1, 1) == []


@settings(max_examples=20)
@given(
    st.integers(0, 30).flatmap(
        lambda rows: st.fixed_dictionaries(
            {
                name: st.lists(st.none() | kind, min_size=rows, max_size=rows)
                for name, kind in {
                    "whole": st.integers(-(2**60), 2**60),
                    "number": st.floats(allow_nan=False),
                    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
                    "tags": st.lists(st.text("ab", max_size=2), max_size=3),
                }.items()
            }
        )
    )
)
def test_a_saved_table_is_mapped_and_the_same(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, list[Any]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "x.arrow"
    table = Table.of(columns)
    before = pa.total_allocated_bytes()
    table.save(path)
    again = Table.open(path)
    assert pa.total_allocated_bytes() - before < 4096, "mapped, not read"
    assert again.arrow.equals(table.arrow)
    assert again.records(0, again.length) == table.records(0, table.length)
    for name, values in columns.items():
        found = [None if value != value else value for value in again[name].tolist()]
        assert found == values


def test_a_saved_table_without_columns_keeps_its_rows(tmp_path: Path) -> None:
    Table.of({}, 5).save(tmp_path / "x.arrow")
    assert Table.open(tmp_path / "x.arrow").length == 5
