"""What `prepare` makes of good files."""

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhiyin.data import merging, plain
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source, Summary, prepare
from zhiyin.errors import DataError, Failure

ROWS = [("b", "y", 20), ("a", "x", 30), ("b", "x", 10), ("a", "z", 30), ("ü", "y", 5), ("a", "y", 7)]


def events(rows: list[tuple[Any, Any, Any]]) -> pa.Table:
    users, items, times = zip(*rows, strict=True)
    return pa.table({"user": list(users), "item": list(items), "time": list(times)})


def csv_text(table: pa.Table, delimiter: str = ",") -> bytes:
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(table, sink, pa.csv.WriteOptions(delimiter=delimiter))
    return bytes(sink.getvalue().to_pybytes())


def arrow_file(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "log.parquet": lambda table, path: pa.parquet.write_table(table, path),
    "log.csv": lambda table, path: path.write_bytes(csv_text(table)),
    "log.csv.gz": lambda table, path: path.write_bytes(gzip.compress(csv_text(table))),
    "log.tsv": lambda table, path: path.write_bytes(csv_text(table, "\t")),
    "semicolons.csv": lambda table, path: path.write_bytes(csv_text(table, ";")),
    "bom.csv": lambda table, path: path.write_bytes(b"\xef\xbb\xbf" + csv_text(table)),
    "crlf.csv": lambda table, path: path.write_bytes(csv_text(table).replace(b"\n", b"\r\n")),
    "log.arrow": arrow_file,
    "log.feather": lambda table, path: pa.feather.write_feather(table, path),
    "it's [1]*.parquet": lambda table, path: pa.parquet.write_table(table, path),
}


def opened(source: Source, folder: Path) -> Prepared:
    prepare(source, folder)
    return Prepared.open(folder)


def triples(data: Prepared) -> list[tuple[str, str, int]]:
    log = data.events
    return list(zip(data.users.ids(log.users), data.items.ids(log.items), log.times.tolist(), strict=True))


def in_order(rows: list[tuple[str, str, int]], unit: int = 1) -> list[tuple[str, str, int]]:
    """The oracle: Python's own stable sort, ids by their UTF-8 bytes, the first of equal events kept."""
    rows = [(user, item, time * unit) for user, item, time in rows]
    return sorted(dict.fromkeys(rows), key=lambda row: (row[0].encode(), row[2]))


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same(tmp_path: Path, name: str) -> None:
    WRITERS[name](events(ROWS), tmp_path / name)
    data = opened(Source(tmp_path / name), tmp_path / "prepared")
    assert triples(data) == in_order(ROWS, 1000)
    assert data.users.ids() == ["a", "b", "ü"]
    assert data.items.ids() == ["x", "y", "z"]
    assert data.events.offsets.tolist() == [0, 3, 5, 6]
    assert data.clock
    assert not data.item_table
    assert not data.user_table
    assert (data.item_table.length, data.user_table.length) == (3, 3)


texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=3)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(texts, texts, st.integers(0, 4)), min_size=1, max_size=30),
    st.sampled_from(["log.parquet", "log.csv", "log.arrow"]),
)
def test_any_log_comes_out_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], name: str
) -> None:
    folder = tmp_path_factory.mktemp("log")
    WRITERS[name](events(rows), folder / name)
    data = opened(Source(folder / name, time_unit="position"), folder / "prepared")
    assert triples(data) == in_order(rows)
    assert not data.clock


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.arrow"])
def test_ties_keep_their_order_of_arrival_in_a_log_that_is_read_in_parallel(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MOST_EVENTS", 0)  # as a log that is too large for the quick way
    generator = np.random.default_rng(0)
    count = 400_000
    users, items = generator.integers(0, 50, count), generator.integers(0, 100_000, count)
    times = generator.integers(0, 3, count)
    WRITERS[name](pa.table({"user": users, "item": items, "time": times}), tmp_path / name)
    data = opened(Source(tmp_path / name, time_unit="position", duplicates="keep"), tmp_path / "prepared")
    user_names = np.array(data.users.ids()).astype(int)
    order = np.lexsort((times, np.array([str(user).encode() for user in users])))
    assert np.array_equal(user_names[data.events.users], users[order])
    assert np.array_equal(np.array(data.items.ids()).astype(int)[data.events.items], items[order])


def test_a_folder_or_a_pattern_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (log / "day=2").mkdir(parents=True)
    (log / "_SUCCESS").write_text("")
    (log / ".hidden.csv").write_text("nothing")
    (log / "b.csv").write_text("user,item,time\nu,2,0\n")
    (log / "a.csv").write_text("user,item,time\nu,1,0\n")
    (log / "day=2" / "a.csv").write_text("user,item,time\nu,3,0\n")
    data = opened(Source(log, time_unit="position"), tmp_path / "folder")
    assert [item for _, item, _ in triples(data)] == ["1", "2", "3"]
    data = opened(Source(log / "*.csv", time_unit="position"), tmp_path / "pattern")
    assert [item for _, item, _ in triples(data)] == ["1", "2"]


def test_an_id_is_the_same_whether_text_whole_number_or_float(tmp_path: Path) -> None:
    pa.parquet.write_table(
        pa.table({"user": [7.0, 8.0], "item": pa.array([10, 2], pa.uint16()), "time": [1, 2]}), tmp_path / "log.parquet"
    )
    (tmp_path / "users.csv").write_text("user,country\n7.0,fr\n8.0,de\n")
    (tmp_path / "items.csv").write_text("item,kind\n2,b\n10,a\n")
    source = Source(tmp_path / "log.parquet", items=tmp_path / "items.csv", users=tmp_path / "users.csv")
    data = opened(source, tmp_path / "prepared")
    assert data.users.ids() == ["7", "8"]
    assert data.items.ids() == ["10", "2"]
    assert list(data.user_table["country"]) == ["fr", "de"]
    assert list(data.item_table["kind"]) == ["a", "b"]


def test_text_ids_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\n007,1.0,1\n7,1.50,2\n")
    data = opened(Source(tmp_path / "log.csv"), tmp_path / "prepared")
    assert data.users.ids() == ["007", "7"]
    assert data.items.ids() == ["1.0", "1.50"]


def test_the_catalogue_is_the_item_table_and_the_log_and_tables_have_a_row_for_each(tmp_path: Path) -> None:
    pa.parquet.write_table(events(ROWS), tmp_path / "log.parquet")
    items = pa.table(
        {
            "item": ["z", "new", "x"],
            "row": [1, None, 3],
            "price": [1.5, float("nan"), 2.0],
            "genres": [["a", "b"], [], None],
            "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "fixed": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64(), 2)),
            "released": [datetime(2020, 1, 2), None, datetime(2021, 1, 2)],
            "kind": pa.array(["k", "l", "k"]).dictionary_encode(),
            "new": [True, False, True],
        }
    )
    pa.parquet.write_table(items, tmp_path / "items.parquet")
    arrow_file(items, tmp_path / "items.arrow")
    for name in ("items.parquet", "items.arrow"):
        summary = prepare(Source(tmp_path / "log.parquet", items=tmp_path / name), tmp_path / "prepared")
        data = Prepared.open(tmp_path / "prepared")
        assert data.items.ids() == ["new", "x", "y", "z"]
        assert "item" not in data.item_table
        assert data.item_table.records(0, 4) == [
            {"genres": [], "vector": [3.0, 4.0], "fixed": [3.0, 4.0], "kind": "l", "new": False},
            {
                "row": 3,
                "price": 2.0,
                "vector": [5.0, 6.0],
                "fixed": [5.0, 6.0],
                "released": "2021-01-02 00:00:00",
                "kind": "k",
                "new": True,
            },
            {},
            {
                "row": 1,
                "price": 1.5,
                "genres": ["a", "b"],
                "vector": [1.0, 2.0],
                "fixed": [1.0, 2.0],
                "released": "2020-01-02 00:00:00",
                "kind": "k",
                "new": True,
            },
        ]
        assert (summary.items_without_attributes, summary.items_without_events) == (1, 1)


def test_a_vector_in_every_row_becomes_a_matrix(tmp_path: Path) -> None:
    pa.parquet.write_table(events(ROWS), tmp_path / "log.parquet")
    pa.parquet.write_table(
        pa.table({"item": ["x", "y", "z"], "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}), tmp_path / "items.parquet"
    )
    data = opened(Source(tmp_path / "log.parquet", items=tmp_path / "items.parquet"), tmp_path / "prepared")
    assert data.item_table["vector"].tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def test_a_csv_table_has_numbers_truth_values_and_text(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,i,1\n")
    (tmp_path / "users.csv").write_text(
        'id,age,income,member,zip,note\nu,31,1.5e3,true,01234,"a, b"\nv,,,False,99999,\n'
    )
    data = opened(Source(tmp_path / "log.csv", users=tmp_path / "users.csv", user_id="id"), tmp_path / "prepared")
    assert data.user_table.records(0, 2) == [
        {"age": 31, "income": 1500.0, "member": True, "zip": "01234", "note": "a, b"},
        {"member": False, "zip": "99999"},
    ]


@pytest.mark.parametrize(
    ("unit", "value", "milliseconds"),
    [
        ("s", 1_700_000_000, 1_700_000_000_000),
        ("s", 1_700_000_000.25, 1_700_000_000_250),
        ("ms", 1_700_000_000_123, 1_700_000_000_123),
        ("us", 1_700_000_000_123_999, 1_700_000_000_123),
        ("ns", 1_700_000_000_123_999_999, 1_700_000_000_123),
        ("iso", datetime(2024, 1, 2, 3, 4, 5, 678_000), 1_704_164_645_678),
        ("iso", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), 1_704_164_645_000),
        ("iso", datetime(2024, 1, 2).date(), 1_704_153_600_000),
        ("iso", "2024-01-02T03:04:05Z", 1_704_164_645_000),
        ("iso", "2024-01-02 03:04:05+02:00", 1_704_157_445_000),
        ("position", 17, 17),
        ("position", 17.0, 17),
    ],
)
@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_times_become_milliseconds(tmp_path: Path, unit: Any, value: object, milliseconds: int, name: str) -> None:
    WRITERS[name](events([("u", "i", value)]), tmp_path / name)
    data = opened(Source(tmp_path / name, time_unit=unit), tmp_path / "prepared")
    assert data.events.times.tolist() == [milliseconds]
    assert data.clock == (unit != "position")


def test_without_a_time_column_the_rows_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nv,b\nu,c\nv,a\nu,c\n")
    data = opened(Source(tmp_path / "log.csv", time="", time_unit="position"), tmp_path / "prepared")
    assert triples(data) == [("u", "c", 1), ("u", "c", 3), ("v", "b", 0), ("v", "a", 2)]


def test_further_columns_follow_their_events(tmp_path: Path) -> None:
    table = events(ROWS).append_column("row", pa.array([0, 1, 2, None, 4, 5]))
    table = table.append_column("device", pa.array(["p", "q", "r", "s", None, "u"]))
    for name in ("a", "b", "n", "t"):
        table = table.append_column(name, pa.array([5, 4, 3, 2, 1, 0]))
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    columns = ("row", "device", "time", "a", "b", "n", "t")
    data = opened(Source(tmp_path / "log.parquet", columns=columns), tmp_path / "prepared")
    assert data.events.columns["device"].tolist() == ["u", "q", "s", "r", "p", None]
    assert np.array_equal(data.events.columns["row"], [5, 1, np.nan, 2, 0, 4], equal_nan=True)
    assert data.events.columns["time"].tolist() == [7, 30, 30, 10, 20, 5]
    for name in ("a", "b", "n", "t"):
        assert data.events.columns[name].tolist() == [0, 4, 2, 3, 5, 1]


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_repeated_events_are_dropped_or_kept_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(merging, "_CHUNK", chunk)
    rows = [("u", "a", 1), ("u", "b", 1), ("u", "a", 1), ("u", "a", 2), ("v", "a", 1), ("u", "a", 1), ("v", "a", 1)]
    table = events(rows).append_column("n", pa.array(range(7)))
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    dropped = prepare(Source(tmp_path / "log.parquet", columns=("n",)), tmp_path / "dropped")
    data = Prepared.open(tmp_path / "dropped")
    assert data.events.columns["n"].tolist() == [0, 1, 3, 4]
    assert data.events.offsets.tolist() == [0, 3, 4]
    assert triples(data) == in_order(rows, 1000)
    assert (dropped.duplicates, dropped.kept, dropped.events) == (3, False, 4)
    assert "3 events repeat an earlier one's user, item and time: dropped" in dropped.words()
    kept = prepare(Source(tmp_path / "log.parquet", duplicates="keep"), tmp_path / "kept")
    assert (kept.duplicates, kept.kept, kept.events) == (3, True, 7)
    assert len(Prepared.open(tmp_path / "kept").events) == 7
    assert "kept" in kept.words()


def test_the_summary_says_what_was_found(tmp_path: Path) -> None:
    rows = [("a", "x", 1_700_000_000), ("a", "y", 1_700_086_400), ("a", "x", 1_700_086_401), ("b", "y", 1_700_000_001)]
    pa.parquet.write_table(events(rows), tmp_path / "log.parquet")
    (tmp_path / "users.csv").write_text("user,age\na,3\nc,4\n")
    (tmp_path / "items.csv").write_text("item,title\nx,X\nz,Z\n")
    told: list[str] = []
    source = Source(tmp_path / "log.parquet", items=tmp_path / "items.csv", users=tmp_path / "users.csv")
    summary = prepare(source, tmp_path / "prepared", told.append)
    assert summary == Summary(
        users=3,
        items=3,
        events=4,
        first=1_700_000_000_000,
        last=1_700_086_401_000,
        clock=True,
        median_events=2.0,
        duplicates=0,
        kept=False,
        items_without_attributes=1,
        users_without_attributes=1,
        items_without_events=1,
    )
    assert summary.words() == (
        "3 users, 3 items, 4 events, 2023-11-14 to 2023-11-15\n"
        "half of the users have 2 events or more\n"
        "1 items of the log are not in the item table: their attributes are missing\n"
        "1 users of the log are not in the user table: their attributes are missing\n"
        "1 items of the item table have no events: candidates all the same"
    )
    assert json.loads(json.dumps(asdict(summary)))["median_events"] == 2.0
    assert told[0] == "reading the log"
    assert "sorting 4 events" in told


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_files_give_the_same_data_set_and_leave_nothing_else(tmp_path: Path) -> None:
    pa.parquet.write_table(events(ROWS), tmp_path / "log.parquet")
    for name in ("one", "two"):
        prepare(Source(tmp_path / "log.parquet"), tmp_path / "deep" / name)
    assert contents(tmp_path / "deep" / "one") == contents(tmp_path / "deep" / "two")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["one", "two"]


def test_an_older_data_set_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa.parquet.write_table(events(ROWS), tmp_path / "log.parquet")
    (tmp_path / "new.csv").write_text("user,item,time\nu,i,1\n")
    (tmp_path / "bad.csv").write_text("user,item,time\nu,i,\n")
    folder = tmp_path / "prepared"
    prepare(Source(tmp_path / "log.parquet"), folder)
    before = contents(folder)
    with pytest.raises(DataError):
        prepare(Source(tmp_path / "bad.csv"), folder)
    assert contents(folder) == before

    def full(self: Prepared, folder: Path) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Prepared, "save", full)
        with pytest.raises(Failure, match=r"No space left.*Free some space"):
            prepare(Source(tmp_path / "new.csv"), folder)
    assert contents(folder) == before
    prepare(Source(tmp_path / "new.csv"), folder)
    assert Prepared.open(folder).items.ids() == ["i"]
    assert not list(tmp_path.glob(".building*"))


def test_a_helper_killed_on_the_way_leaves_nothing_that_opens(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,i,1\n")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from zhiyin.data.prepared import Prepared\n"
        "from zhiyin.data.sources import Source, prepare\n"
        "save = Prepared.save\n"
        "def killed(self, folder):\n"
        "    save(self, folder)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Prepared.save = killed\n"
        "prepare(Source(Path('log.csv')), Path('prepared'))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="no prepared data here"):
        Prepared.open(tmp_path / "prepared")
    prepare(Source(tmp_path / "log.csv"), tmp_path / "prepared")
    assert len(Prepared.open(tmp_path / "prepared").events) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "prepared"]


def test_one_user_may_have_a_million_events(tmp_path: Path) -> None:
    """Among others; its times are full of ties, and some of its events come twice."""
    generator = np.random.default_rng(0)
    count = 1_000_000
    items, times = generator.integers(0, 5000, count), generator.integers(0, count // 2, count)
    users = np.where(np.arange(count) == 7, "u2", "giant")
    pa.parquet.write_table(pa.table({"user": users, "item": items, "time": times}), tmp_path / "log.parquet")
    summary = prepare(Source(tmp_path / "log.parquet", time_unit="position"), tmp_path / "prepared")
    data = Prepared.open(tmp_path / "prepared")
    log = data.events
    mine = np.flatnonzero(users == "giant")
    firsts = mine[np.sort(np.unique(times[mine] * 5000 + items[mine], return_index=True)[1])]
    order = firsts[np.argsort(times[firsts], kind="stable")]
    assert (summary.users, summary.events, summary.duplicates) == (2, len(order) + 1, len(mine) - len(order))
    assert summary.duplicates > 50
    assert log.offsets.tolist() == [0, len(order), len(order) + 1]
    assert np.array_equal(np.array(data.items.ids()).astype(int)[log.items[:-1]], items[order])
    assert np.array_equal(log.times[:-1], times[order])
    windows = log.histories(np.array([0, len(order) - 1, len(order)]), 2)
    assert windows[1].tolist() == log.items[len(order) - 3 : len(order) - 1].tolist()
    assert windows[0].tolist() == windows[2].tolist() == [-1, -1]


def test_users_without_history_have_a_row_and_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nb,x,1\nb,y,2\nd,x,1\n")
    (tmp_path / "users.csv").write_text("user,age\na,1\nb,2\nc,3\nd,4\ne,5\n")
    data = opened(Source(tmp_path / "log.csv", users=tmp_path / "users.csv"), tmp_path / "prepared")
    assert data.users.ids() == ["a", "b", "c", "d", "e"]
    assert data.events.offsets.tolist() == [0, 0, 2, 2, 3, 3]
    assert data.events.histories(np.arange(3), 2).tolist() == [[-1, -1], [-1, 0], [-1, -1]]
    assert data.user_table["age"].tolist() == [1, 2, 3, 4, 5]


def test_two_ways_to_write_a_number_are_one_id(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\n7.0,1,1\n7.00,2,2\n")
    assert opened(Source(tmp_path / "log.csv"), tmp_path / "prepared").users.ids() == ["7"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,i,1\n")
    with pytest.raises(DataError, match=r"this is no prepared data set.*Set home to another folder"):
        prepare(Source(tmp_path / "log.csv"), tmp_path)
    (tmp_path / "empty").mkdir()
    prepare(Source(tmp_path / "log.csv"), tmp_path / "empty")
    assert len(Prepared.open(tmp_path / "empty").events) == 1
