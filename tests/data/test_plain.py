"""A small, plain log is prepared in memory, and what comes out is what DuckDB makes of it, byte for byte."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhiyin.data import plain as module
from zhiyin.data.plain import plain
from zhiyin.data.sources import Source, TimeUnit, prepare
from zhiyin.errors import ZhiyinError

NEW_YEAR = 1_704_067_200  # 2024, in seconds
IDS = st.one_of(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), min_size=1, max_size=4),
    st.lists(st.integers(-3, 12), min_size=1, max_size=4),
    st.lists(st.sampled_from(["", " ", "a", "B", "7.0", "007", "é", "\U0001f3b5", "～"]), min_size=1, max_size=4),
)


@st.composite
def logs(draw: st.DrawFn) -> tuple[dict[str, list[Any]], TimeUnit, int, bool]:
    """Columns, a unit, rows in a row group, and whether ids are written as dictionaries."""
    users, items, count = draw(IDS), draw(IDS), draw(st.integers(1, 30))
    unit: TimeUnit = draw(st.sampled_from(["s", "ms", "position"]))
    start = {"s": NEW_YEAR, "ms": 1000 * NEW_YEAR, "position": 0}[unit]
    scale = draw(st.sampled_from([1, 1 << 60])) if unit == "position" else 1
    columns: dict[str, list[Any]] = {
        "user": [users[draw(st.integers(0, len(users) - 1))] for _ in range(count)],
        "item": [items[draw(st.integers(0, len(items) - 1))] for _ in range(count)],
        "time": [start + draw(st.integers(0, 5)) * scale for _ in range(count)],
    }
    if draw(st.booleans()) and draw(st.booleans()):
        columns[draw(st.sampled_from(list(columns)))][-1] = None
    return columns, unit, draw(st.integers(1, 30)), draw(st.booleans())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs(), duplicates=st.sampled_from(["drop", "keep"]))
def test_both_ways_write_the_same(
    log: tuple[dict[str, list[Any]], TimeUnit, int, bool], duplicates: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    columns, unit, group, encoded = log
    folder = tmp_path_factory.mktemp("both")
    pq.write_table(pa.table(columns), folder / "log.parquet", row_group_size=group, use_dictionary=encoded)
    source = Source(folder / "log.parquet", time_unit=unit, duplicates=duplicates)
    with pytest.MonkeyPatch.context() as patch:
        at_once = outcome(source, folder / "prepared")
        patch.setattr(module, "MOST_EVENTS", 0)
        assert at_once == outcome(source, folder / "prepared")


def outcome(source: Source, folder: Path) -> Mapping[str, object]:
    """All that `prepare` said and wrote, or the error it raised."""
    try:
        summary = prepare(source, folder)
    except ZhiyinError as error:
        return {"error": str(error)}
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()} | {"": summary}


GOOD: dict[str, Any] = {"user": ["b", "a", "b"], "item": [5, 6, 5], "time": [NEW_YEAR + 9, NEW_YEAR, NEW_YEAR + 1]}


def read(folder: Path, columns: Any, unit: str = "s") -> module.Plain | None:
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return plain(folder / "log.parquet", "user", "item", "time", unit)


def test_a_plain_log_is_taken(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found is not None
    assert (found.users.ids(), found.items.ids()) == (["a", "b"], ["5", "6"])
    assert found.events.users.tolist() == [0, 1, 1]
    assert found.events.items.tolist() == [1, 0, 0]
    assert found.events.times.tolist() == [1000 * NEW_YEAR, 1000 * NEW_YEAR + 1000, 1000 * NEW_YEAR + 9000]
    assert found.events.offsets.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"user": ["a", None, "b"]},
        {"user": ["a", " ", "b"]},
        {"user": [1.0, 2.0, 3.0]},
        {"user": [{"name": "a"}] * 3},
        {"user": [["a"]] * 3},
        {"item": [{"id": 1}] * 3},
        {"time": [{"at": NEW_YEAR}] * 3},
        {"user": [b"a", b"b", b"c"]},
        {"user": pa.array([b"\xff", b"a", b"a"]).view(pa.string())},
        {"time": [NEW_YEAR, None, NEW_YEAR]},
        {"time": [float(NEW_YEAR)] * 3},
        {"time": [-1, NEW_YEAR, NEW_YEAR]},
        {"time": [1000 * NEW_YEAR] * 3},
        {"Time": [NEW_YEAR] * 3},
        {"user": [], "item": [], "time": []},
    ],
    ids=repr,
)
def test_anything_else_is_left_to_the_other_way(tmp_path: Path, change: Mapping[str, Any]) -> None:
    assert read(tmp_path, {**GOOD, **change}) is None


def test_a_log_that_is_not_small_is_left_to_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    assert read(tmp_path, GOOD) is None


def test_a_file_cut_short_is_left_to_the_other_way(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) is not None
    path = tmp_path / "log.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert plain(path, "user", "item", "time", "s") is None


def test_an_id_in_a_files_dictionary_that_no_event_has_is_no_user(tmp_path: Path) -> None:
    users = pa.DictionaryArray.from_arrays(pa.array([0, 0, 1]), pa.array(["a", "b", "unused"]))
    found = read(tmp_path, {**GOOD, "user": users})
    assert found is None or found.users.ids() == ["a", "b"]
