"""What only a store on disk can do, and what can go wrong with one."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zhiyin.errors import SpecError, StoreError
from zhiyin.stores.base import Event
from zhiyin.stores.lmdb import LMDB, LMDBStore
from zhiyin.stores.memory import Memory


def spec(folder: Path, map_gb: float = 0.01) -> LMDB:
    return LMDB(folder / "store", keep=100, map_gb=map_gb)


def test_all_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = spec(tmp_path).open()
    store.append([Event("u", "i", 1)])
    store.put_profiles({"u": {"age": 3}})
    store.put_cards({"i": {"title": "t"}})
    store.close()
    again = spec(tmp_path).open()
    assert again.read(["u"], 5)[0].events == (Event("u", "i", 1),)
    assert again.read(["u"], 5)[0].profile == {"age": 3}
    assert again.cards(["i"]) == [{"title": "t"}]
    assert again.append([Event("u", "i", 1)]) == 0
    again.close()


def test_a_smaller_keep_shows_at_once_and_drops_at_the_next_event(tmp_path: Path) -> None:
    store = spec(tmp_path).open()
    store.append([Event("u", f"i{t}", t) for t in range(50)])
    store.close()
    smaller = LMDB(tmp_path / "store", keep=3, map_gb=0.01).open()
    assert [event.time for event in smaller.read(["u"], 10)[0].events] == [47, 48, 49]
    smaller.append([Event("u", "i50", 50)])
    assert [event.time for event in smaller.read(["u"], 10)[0].events] == [48, 49, 50]
    smaller.close()
    wide = spec(tmp_path).open()
    assert len(wide.read(["u"], 100)[0].events) == 3
    wide.close()


def test_opened_twice_in_a_process_it_is_one_store(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    one, two, three = spec(tmp_path).open(), spec(tmp_path).open(), spec(tmp_path / "link").open()
    one.append([Event("u", "i", 1)])
    one.close()
    one.close()
    assert two.read(["u"], 1)[0].events == (Event("u", "i", 1),)
    two.close()
    assert three.read(["u"], 1)[0].events == (Event("u", "i", 1),)
    three.close()


OTHER = """
import sys
from pathlib import Path
from zhiyin.stores.base import Event
from zhiyin.stores.lmdb import LMDB
store = LMDB(Path(sys.argv[1]), keep=100, map_gb=0.01).open()
print("open", flush=True)
for line in sys.stdin:
    word, _, argument = line.strip().partition(" ")
    if word == "append":
        print(store.append([Event("u", argument, int(argument))]), flush=True)
    elif word == "read":
        print(*(event.item for event in store.read(["u"], 100)[0].events), flush=True)
"""


class Other:
    """The same store, open in another process."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.said() == "open"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.said()


def test_two_processes_see_each_others_writes(tmp_path: Path) -> None:
    store = spec(tmp_path).open()
    other = Other(tmp_path / "store")
    try:
        for time in range(0, 20, 2):
            assert store.append([Event("u", str(time), time)]) == 1
            assert other.ask(f"append {time}") == "0"
            assert other.ask(f"append {time + 1}") == "1"
        assert [event.item for event in store.read(["u"], 100)[0].events] == [str(t) for t in range(20)]
        assert other.ask("read") == " ".join(map(str, range(20)))
    finally:
        other.process.kill()
        other.process.communicate()
    assert store.append([Event("u", "20", 20)]) == 1
    store.close()


def test_a_process_that_is_killed_has_lost_nothing_it_said_it_kept(tmp_path: Path) -> None:
    other = Other(tmp_path / "store")
    for time in range(10):
        other.ask(f"append {time}")
    other.process.kill()
    other.process.communicate()
    store = spec(tmp_path).open()
    assert [event.time for event in store.read(["u"], 100)[0].events] == list(range(10))
    store.close()


def fill(store: LMDBStore) -> tuple[int, str]:
    """Append batches until one fails; how many were kept, and what the store said."""
    for batch in range(10_000):
        try:
            store.append([Event(f"u{batch}", f"i{at}", at, {"pad": "x" * 500}) for at in range(50)])
        except StoreError as error:
            return batch, str(error)
    raise AssertionError("it was never full")


def users_with_all(store: LMDBStore, count: int) -> bool:
    """Whether `count` batches are there whole, and nothing of the next."""
    kept = [len(state.events) for state in store.read([f"u{batch}" for batch in range(count + 1)], 100)]
    return kept == [50] * count + [0]


def test_a_full_map_is_a_sentence_and_nothing_is_half_kept(tmp_path: Path) -> None:
    store = spec(tmp_path, map_gb=0.002).open()
    kept, said = fill(store)
    assert "full: 0.002" in said
    assert "Raise store.map_gb; nothing of this write was kept" in said
    assert kept > 5
    assert users_with_all(store, kept)
    with pytest.raises(StoreError, match="full"):
        store.put_cards({f"i{at}": {"pad": "x" * 3000} for at in range(300)})
    assert store.cards(["i0"]) == [None]
    store.close()
    larger = spec(tmp_path, map_gb=0.01).open()
    assert larger.append([Event("more", f"i{at}", at, {"pad": "x" * 500}) for at in range(50)]) == 50
    larger.close()


def test_a_full_disk_is_a_sentence_and_nothing_is_half_kept(tmp_path: Path) -> None:
    """The system refuses to let the file grow: what a full disk does."""
    store = spec(tmp_path).open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        kept, said = fill(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "nothing of this write was kept" in said
    assert kept > 5
    assert users_with_all(store, kept)
    assert store.append([Event("again", "i", 1)]) == 1
    store.close()


def test_a_store_that_cannot_be_opened_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file: cannot be opened .*Set \[store\] path to a folder"):
        LMDB(tmp_path / "file").open()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"store: cannot be opened \(.*MDB_INVALID"):
        spec(tmp_path).open()
    with pytest.raises(StoreError, match=r"cannot be opened \(.*MAP_FULL.*map_gb"):
        LMDB(tmp_path / "tiny", map_gb=1e-5).open()
    LMDB(tmp_path / "tiny", map_gb=0.01).open().close()


def test_a_keep_or_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match=r"keep = 0.*expected keep ≥ 1"):
        LMDB(keep=0)
    with pytest.raises(SpecError, match=r"map_gb = -1"):
        LMDB(map_gb=-1)
    with pytest.raises(SpecError, match=r"\.keep: 0; expected at least 1"):
        Memory(keep=0)
