"""`append`: as if all files had been prepared at once, but that known ids keep their rows."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data import merging
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source, append, prepare
from zhiyin.errors import DataError, Failure

Row = tuple[str, str, int]


def write(path: Path, rows: list[Row], **columns: list[Any]) -> Path:
    users, items, times = zip(*rows, strict=True)
    table = pa.table({"user": list(users), "item": list(items), "time": list(times), **columns})
    pa.parquet.write_table(table, path)
    return path


def told(data: Prepared, column: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """Every user's events in order, with ids."""
    log = data.events
    rows = list(zip(data.items.ids(log.items), log.times.tolist(), strict=True))
    more = log.columns[column].tolist() if column else [None] * len(rows)
    both = [(*row, one) for row, one in zip(rows, more, strict=True)]
    return {user: both[log.offsets[row] : log.offsets[row + 1]] for row, user in enumerate(data.users.ids())}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


letters = st.sampled_from(["a", "b", "c", "ü", "z9"])
logs = st.lists(st.tuples(letters, letters, st.integers(0, 3)), min_size=1, max_size=25)


@settings(max_examples=12, deadline=None)
@given(st.lists(logs, min_size=2, max_size=3), st.sampled_from(["drop", "keep"]), st.sampled_from([1, 3, 1 << 21]))
def test_appending_equals_preparing_all_at_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Row]], duplicates: Any, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("append")
    (folder / "log").mkdir()
    count = 0
    for number, rows in enumerate(parts):
        write(folder / "log" / f"{number}.parquet", rows, n=list(range(count, count + len(rows))))
        count += len(rows)
    whole = prepare(Source(folder / "log", columns=("n",), duplicates=duplicates), folder / "whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "_CHUNK", chunk)
        known: list[str] = []
        for number in range(len(parts)):
            source = Source(folder / "log" / f"{number}.parquet", columns=("n",), duplicates=duplicates)
            summary = (append if number else prepare)(source, folder / "grown")
            ids = Prepared.open(folder / "grown").items.ids()
            assert ids[: len(known)] == known
            known = ids
    one, two = Prepared.open(folder / "whole"), Prepared.open(folder / "grown")
    assert told(one, "n") == told(two, "n")
    assert sorted(one.items.ids()) == sorted(two.items.ids())
    assert two.events.users.tolist() == np.repeat(np.arange(len(two.users)), np.diff(two.events.offsets)).tolist()
    assert (whole.events, whole.users, whole.items, whole.median_events, whole.first, whole.last) == (
        summary.events,
        summary.users,
        summary.items,
        summary.median_events,
        summary.first,
        summary.last,
    )
    if duplicates == "keep":
        assert whole.duplicates == summary.duplicates
    assert sorted(path.name for path in folder.iterdir()) == ["grown", "log", "whole"]


def test_known_ids_keep_their_rows_and_new_ones_follow_by_their_ids(tmp_path: Path) -> None:
    prepare(Source(write(tmp_path / "one.parquet", [("m", "m", 5), ("p", "q", 6)])), tmp_path / "data")
    append(Source(write(tmp_path / "two.parquet", [("z", "a", 1), ("b", "m", 2), ("m", "p", 1)])), tmp_path / "data")
    data = Prepared.open(tmp_path / "data")
    assert data.users.ids() == ["m", "p", "b", "z"]
    assert data.items.ids() == ["m", "q", "a", "p"]
    assert data.items.rows(["p", "m", "other"]).tolist() == [3, 0, -1]
    assert data.events.items.tolist() == [3, 0, 1, 0, 2]
    assert data.events.offsets.tolist() == [0, 2, 3, 4, 5]


def test_an_event_that_comes_again_in_a_later_file_is_dropped_and_counted(tmp_path: Path) -> None:
    source = Source(write(tmp_path / "one.parquet", [("u", "a", 1), ("u", "b", 2)]))
    prepare(source, tmp_path / "data")
    before = contents(tmp_path / "data")
    summary = append(source, tmp_path / "data")
    assert (summary.events, summary.duplicates) == (2, 2)
    assert contents(tmp_path / "data") == before


def test_positions_go_on_where_the_old_ones_end(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item\nv,b\nu,c\nv,a\n")
    (tmp_path / "2.csv").write_text("user,item\nu,c\nv,b\n")
    source = {name: Source(tmp_path / name, time="", time_unit="position") for name in ("1.csv", "2.csv", "*.csv")}
    prepare(source["1.csv"], tmp_path / "grown")
    append(source["2.csv"], tmp_path / "grown")
    prepare(source["*.csv"], tmp_path / "whole")
    assert told(Prepared.open(tmp_path / "grown")) == told(Prepared.open(tmp_path / "whole"))
    assert told(Prepared.open(tmp_path / "grown"))["v"] == [("b", 0, None), ("a", 2, None), ("b", 4, None)]


def test_a_table_is_read_anew_and_without_one_new_rows_have_no_attributes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.parquet", [("u", "m", 1)]), write(tmp_path / "2.parquet", [("u", "a", 2)])
    table = tmp_path / "items.csv"
    table.write_text("item,price\nm,3\nx,4\n")
    prepare(Source(one, items=table), tmp_path / "data")
    without = append(Source(two), tmp_path / "data")
    data = Prepared.open(tmp_path / "data")
    assert data.items.ids() == ["m", "x", "a"]
    assert data.item_table.records(0, 3) == [{"price": 3}, {"price": 4}, {}]
    assert (without.items_without_events, data.user_table.length) == (1, 1)
    table.write_text("item,price,title\na,5,A\nm,3.5,M\nb,1,B\n")
    again = append(Source(two, items=table), tmp_path / "data")
    data = Prepared.open(tmp_path / "data")
    assert data.items.ids() == ["m", "x", "a", "b"]
    assert data.item_table.records(0, 4) == [
        {"price": 3.5, "title": "M"},
        {},
        {"price": 5.0, "title": "A"},
        {"price": 1.0, "title": "B"},
    ]
    assert again.items_without_attributes == 1


@pytest.mark.parametrize(
    ("old", "new", "values"),
    [
        ([1, 2], [0.5], [1.0, 2.0, 0.5]),
        ([None, None], ["x"], [None, None, "x"]),
        (["x", "y"], pa.array([None], pa.int64()), ["x", "y", None]),
        ([[1.0, 2.0], [3.0, 4.0]], [[5.0]], [[1.0, 2.0], [3.0, 4.0], [5.0]]),
        (["x", None], ["z"], ["x", None, "z"]),
    ],
)
def test_event_columns_take_a_type_that_holds_all(tmp_path: Path, old: Any, new: Any, values: list[object]) -> None:
    for name, rows, column in (("1", [("u", "a", 1), ("u", "a", 2)], old), ("2", [("u", "a", 3)], new)):
        write(tmp_path / f"{name}.parquet", rows, extra=column)
        make = prepare if name == "1" else append
        make(Source(tmp_path / f"{name}.parquet", columns=("extra",)), tmp_path / "data")
    assert [row[2] for row in told(Prepared.open(tmp_path / "data"), "extra")["u"]] == values


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    rows: list[Row] = [("u", "a", 1)]
    prepare(Source(write(tmp_path / "1.parquet", rows, n=[1]), columns=("n",)), tmp_path / "data")
    before = contents(tmp_path)
    for source, message in (
        (
            Source(tmp_path / "1.parquet", time_unit="position", columns=("n",)),
            r"has clock times, and time_unit = 'position'; expected the same kind of time in all files. Set data.time",
        ),
        (
            Source(tmp_path / "1.parquet"),
            r"keeps the event columns \['n'\], the source \[\]; expected the same columns in all files. Set data.col",
        ),
        (Source(tmp_path / "3.parquet", columns=("n",)), r"3.parquet: there is no such file"),
    ):
        with pytest.raises(DataError, match=message):
            append(source, tmp_path / "data")
        assert contents(tmp_path) == before
    write(tmp_path / "2.parquet", rows, n=["many"])
    with pytest.raises(
        DataError, match=r"column 'n' is string in the new files, and was int64; expected values of one"
    ):
        append(Source(tmp_path / "2.parquet", columns=("n",)), tmp_path / "data")
    with pytest.raises(DataError, match=r"no prepared data here. Run `zhiyin prepare recipe.toml` first"):
        append(Source(tmp_path / "1.parquet", columns=("n",)), tmp_path / "nothing")
    (tmp_path / "2.parquet").unlink()
    assert contents(tmp_path) == before


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(Source(write(tmp_path / "1.parquet", [("u", "a", 1)])), tmp_path / "data")
    before = contents(tmp_path)

    def full(self: Prepared, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Prepared, "save", full)
        with pytest.raises(Failure, match=r"No space left.*Free some space"):
            append(Source(tmp_path / "1.parquet"), tmp_path / "data")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_process_killed_while_it_appends_loses_nothing(tmp_path: Path, moment: str) -> None:
    """At worst it dies between the two renames: the old data set then stands aside, and the next call finds it."""
    prepare(Source(write(tmp_path / "1.parquet", [("u", "a", 1)])), tmp_path / "data")
    write(tmp_path / "2.parquet", [("u", "b", 2)])
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from zhiyin.data.sources import Source, append\n"
        "rename = Path.rename\n"
        "def killed(self, target):\n"
        f"    if self.name == 'data' and {moment == 'between'}:\n"
        "        rename(self, target)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.rename = killed\n"
        "append(Source(Path('2.parquet')), Path('data'))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "data").exists() == (moment == "before")
    append(Source(tmp_path / "2.parquet"), tmp_path / "data")
    assert told(Prepared.open(tmp_path / "data")) == {"u": [("a", 1000, None), ("b", 2000, None)]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.parquet", "2.parquet", "data"]
